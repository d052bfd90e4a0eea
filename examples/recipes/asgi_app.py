"""An ASGI application that says which event loop it is served on.

    uvicorn --loop aioxide:new_event_loop asgi_app:app
    aioxide -m hypercorn --workers 0 asgi_app:app
    python asgi_app.py                                    # hypercorn from a program

A framework's application (Starlette, FastAPI, Litestar, Quart) goes in the place of `app`.
"""

import asyncio
import sys


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "http":
        loop = type(asyncio.get_running_loop())
        body = f"{loop.__module__}.{loop.__qualname__}".encode()
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    import aioxide
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = sys.argv[1:] or ["127.0.0.1:8000"]
    aioxide.run(serve(app, config))
