"""What asyncio has and aioxide has in Rust, with types, units and errors: the text of the reference."""
