"""Drawing plans: what a simulated workflow does. Every plan ends by itself."""

from __future__ import annotations

from random import Random
from typing import Any

IDS = ("ada", "bob", "cleo", "dora")  # of instances that several want

_LEAVES = ("compute", "apply", "struggle", "hurry", "defer", "sleep", "listen", "tell", "mark", "stop")
_LEAF_WEIGHTS = (4, 4, 3, 1, 1, 3, 4, 2, 1, 0.4)
_BRANCHES = ("both", "change_mind", "clean_up", "child")
_BRANCH_WEIGHTS = (2, 1.5, 1, 4)
_LIMITS = ("start_to_close_timeout", "schedule_to_close_timeout", "schedule_to_start_timeout", "heartbeat_timeout")
_MANNERS = ("wait", "wait", "leave", "signal", "cancel")


class Plans:
    """Draws plans whose tags are unique."""

    def __init__(self, draw: Random) -> None:
        self._draw = draw
        self._tags = 0
        self._leaf_weights = [weight * draw.choice((0.2, 1, 1, 3)) for weight in _LEAF_WEIGHTS]
        self._branch_weights = [weight * draw.choice((0.2, 1, 1, 3)) for weight in _BRANCH_WEIGHTS]

    def plan(self, depth: int = 2) -> list[Any]:
        steps = self._steps(depth, self._draw.randint(1, 4))
        if depth and self._draw.random() < 0.25:
            steps.append(["again", self.plan(depth - 1)])
        elif self._draw.random() < 0.1:
            steps.append(["fail"])
        return steps

    def seconds(self) -> float:
        return round(self._draw.choice((0.05, 0.5, 3.0)) * self._draw.uniform(0.5, 1.5), 3)

    def _steps(self, depth: int, length: int) -> list[Any]:
        return [self._step(depth) for _ in range(length)]

    def _step(self, depth: int) -> list[Any]:
        draw = self._draw
        if depth and draw.random() < 0.4:
            return self._branch(draw.choices(_BRANCHES, self._branch_weights)[0], depth - 1)
        return self._leaf(draw.choices(_LEAVES, self._leaf_weights)[0])

    def _leaf(self, kind: str) -> list[Any]:
        match kind:
            case "struggle":
                return [kind, self._tag(), self._draw.randint(0, 3)]
            case "hurry":
                return [kind, self._tag(), self._draw.choice(_LIMITS), self.seconds()]
            case "sleep" | "listen":
                return [kind, self.seconds()]
            case "tell":
                return [kind, self._draw.choice(IDS), self._tag()]
            case "stop":
                return [kind, self._draw.choice(IDS)]
        return [kind, self._tag()]

    def _branch(self, kind: str, depth: int) -> list[Any]:
        draw = self._draw
        match kind:
            case "both" | "clean_up":
                return [kind, self._steps(depth, draw.randint(1, 3)), self._steps(depth, draw.randint(1, 2))]
            case "change_mind":
                return [kind, self.seconds(), self._steps(depth, draw.randint(1, 3))]
        options: dict[str, Any] = {"parent_close": draw.choice(("cancel", "terminate", "abandon"))}
        if draw.random() < 0.4:
            options["instance_id"] = draw.choice(IDS)
        return [kind, draw.choice(_MANNERS), options, self.plan(depth), self.seconds()]

    def _tag(self) -> str:
        self._tags += 1
        return f"t{self._tags}"
