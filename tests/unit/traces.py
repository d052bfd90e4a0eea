"""Traces read back, for the tests of the timeline."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aioxide


@dataclass
class Track:
    """What a file says of one task, or of a loop."""

    name: str = ""
    process: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    slices: list[dict[str, Any]] = field(default_factory=list)

    def of(self, category):
        return [one for one in self.slices if one["cat"] == category]


class File:
    """A trace, read back."""

    def __init__(self, path):
        self.text = Path(path).read_text()
        self.content = json.loads(self.text)
        self.facts = self.content["otherData"]
        self.tracks: dict[tuple[int, int], Track] = {}
        self.processes: dict[int, str] = {}
        self.stalls = []
        self.marks = []
        starts, self.arrows = {}, []
        for event in self.content["traceEvents"]:
            key = (event["pid"], event["tid"])
            if event["ph"] == "M":
                if event["name"] == "process_name":
                    self.processes[key[0]] = event["args"]["name"]
                elif event["name"] == "thread_name":
                    self.tracks[key] = Track(event["args"]["name"], self.processes[key[0]], event["args"])
            elif event["ph"] == "X":
                assert event["ts"] >= 0 and event["dur"] > 0
                self.tracks[key].slices.append(event)
                if event["cat"] == "stall":
                    self.stalls.append(event)
            elif event["ph"] == "s":
                starts[event["id"]] = (key, event["ts"])
            elif event["ph"] == "f":
                self.arrows.append((*starts.pop(event["id"]), key, event["ts"]))
            else:
                self.marks.append(event)
        assert not starts

    def task(self, name):
        (found,) = [track for track in self.tracks.values() if track.name == name and "coroutine" in track.about]
        return found

    @property
    def loop(self):
        (found,) = [track for key, track in self.tracks.items() if key[1] == 0]
        return found

    def wakers(self, name):
        """Who woke the task of that name, in order."""
        found = [arrow for arrow in self.arrows if self.tracks[arrow[2]].name == name]
        return [self.tracks[arrow[0]].name for arrow in sorted(found, key=lambda arrow: arrow[3])]


def run(coroutine):
    return aioxide.run(coroutine, loop_factory=aioxide.new_event_loop)
