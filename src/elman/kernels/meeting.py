"""How the threads of a team do the steps of one sequence together.

The first thread leads. It begins alone and does the work of all until every other thread has come, and from then on
each does its own share. They *meet* where one needs what others computed: a thread says how far it is and waits until
the others are as far. Two cores of Zen 4 that share a third-level cache wait 150 to 300 ns for each other, the numbers
that they exchange included, and 600 to 1300 where they are far from each other, as the cores of a virtual machine are
at times; and another process may take one of them. So the first thread counts its looks at the others until they are
there. Where that takes too long for what they save, it sends them home and goes on alone; `Crew` then leaves them out
for some time. Which thread computes a number changes no bit of it.

No thread relies on others to run at the same time: one after another, the first one first, it does all, and the others
find that it has. ``meeting`` (int64) holds `WORDS` words per thread and lasts from call to call; no call begins before
all threads have left the last one. Each counts on from there: to set it back, somebody would have to wait for threads
that come late.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from elman.jit import helper
from elman.jit.atomic import publish, published
from elman.memory import aligned

WORDS = 32
"""Two pairs of cache lines, as processors fetch them in pairs: one for others to read, one for the thread itself."""

# For others to read: the count that a thread has come to; of the first one the step that others begin with, -1 as long
# as there is none, and the count at which they part.
_COUNT, _STEP, _PARTED = 0, 1, 2
# Its own: the count that its next call begins with; of the first one the looks at others beyond what it has patience
# for, in this call, those lost in all calls, and in how many calls it was alone at the end.
_BEGIN, _EXCESS, _LOST, _ALONE = 16, 17, 18, 19
_LOOK = 0.55e-9  # seconds
# In so many meetings the first thread may look twice as often as it has patience for before it goes on alone: 11 us of
# LSTM(64).
_ENDURED = 32
# Seconds without another attempt.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 1.0
# Looks as good as lost where others do not come at all: another process has their core, and the end of a call then
# waits for its slice to end, 4 ms or so.
_TOO_LATE = 7_000_000


@helper
def arrive(meeting, i, meetings):
    """Thread i comes to a call of so many meetings: the count before the first one, and the step it begins with.

    For the first thread that is step 0; for others the one that `gathered` says, or -1 if they are not needed.
    """
    own = i * WORDS
    start = meeting[own + _BEGIN] + 1
    meeting[own + _BEGIN] = start + meetings + 1
    if i == 0:
        meeting[_STEP], meeting[_EXCESS] = -1, 0
        return start, 0
    publish(meeting, own + _COUNT, start)
    while published(meeting, _COUNT) < start:
        pass
    return start, meeting[_STEP]


@helper
def gathered(meeting, start, t, before):
    """For the first thread, alone: whether all others have come; they begin with step t, `before` meetings later."""
    if published(meeting, _COUNT) >= start:  # it has sent them home
        return False
    for k in range(WORDS, meeting.size, WORDS):
        if published(meeting, k + _COUNT) < start:
            return False
    meeting[_STEP] = t
    publish(meeting, _COUNT, start + before)
    return True


@helper
def meet(meeting, i, count, home, patience):
    """Wait until all threads have come to `count`; False if from now on the first one does all, and others leave."""
    if i == 0:
        together = meeting[_EXCESS] <= _ENDURED * patience
        if not together:
            meeting[_PARTED] = count
        publish(meeting, _COUNT, count if together else home)
        looks = 0
        for k in range(WORDS, meeting.size, WORDS):
            while published(meeting, k + _COUNT) < count:
                looks += 1
        meeting[_EXCESS] = max(0, meeting[_EXCESS] + looks - patience)
        meeting[_LOST] += max(0, looks - patience)
        return together
    publish(meeting, i * WORDS + _COUNT, count)
    seen = published(meeting, _COUNT)
    while seen < count:
        seen = published(meeting, _COUNT)
    # Who comes from the meeting before may see it too, and has one more share to do.
    if seen == home and meeting[_PARTED] == count:
        return False
    for k in range(WORDS, meeting.size, WORDS):
        while published(meeting, k + _COUNT) < count:
            pass
    return True


@helper
def part(meeting, i, home, together):
    """The end of a call. If the first thread has done the last step alone, those that come now find that it is done."""
    if i == 0 and not together:
        meeting[_ALONE] += 1
        if meeting[_STEP] < 0:
            meeting[_LOST] += _TOO_LATE
        publish(meeting, _COUNT, home)


class Crew:
    """The threads that do a sequence together, and when they last could not.

    Parameters
    ----------
    size : int
        Number of threads.
    patience : int
        How often the first one may look at the others in each meeting.
    """

    def __init__(self, size: int, patience: int) -> None:
        self.size, self.patience = size, patience
        self.meeting = aligned(size * WORDS, np.int64)
        self.meeting[...] = 0
        self.pieces = np.tile(np.array([0, 1], np.int64), (size, 1, 1))
        """The whole sequence, for each of them."""
        self._alone, self._lost, self._tried = 0, 0, False
        self._pause = self._until = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        # The counts of a copy made during a call would differ from thread to thread.
        return Crew, (self.size, self.patience)

    def attempt(self) -> bool:
        """Whether to do the next call together: after one that failed not for so long that it costs a twentieth."""
        now, alone, lost = time.monotonic(), int(self.meeting[_ALONE]), int(self.meeting[_LOST])
        if alone != self._alone:
            pause = max(4 * self._pause, _FIRST_PAUSE, 20 * _LOOK * (lost - self._lost))
            self._pause = min(pause, _LONGEST_PAUSE)
            self._until = now + self._pause
        elif self._tried:
            self._pause = 0.0
        self._alone, self._lost, self._tried = alone, lost, now >= self._until
        return self._tried
