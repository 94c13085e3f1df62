"""How the threads of a team do the steps of one sequence together.

The first thread leads. It begins alone and does the work of all until every other thread has come, and from then on
each does its own share. They *meet* where one needs what others computed: a thread says how far it is and waits until
the others are as far. Two cores of Zen 4 that share a third-level cache wait 150 to 300 ns for each other, the numbers
that they exchange included, and 600 to 1300 where they are far from each other, as the cores of a virtual machine are
at times; and another process may take one of them. So the first thread counts its looks at the others until they are
there. Where that takes too long for what they save, it sends them home and goes
on alone; `Crew` leaves them out of the next calls. Which thread computes a number changes no bit of it.

No thread relies on others to run at the same time: one after another, the first one does all, and the others find that
it has. ``meeting`` (int64) holds `WORDS` words per thread and lasts from call to call. Each call counts on from the
last one: to set it back, somebody would have to wait for threads that come late.
"""

from __future__ import annotations

import numpy as np

from elman.jit import helper
from elman.jit.atomic import publish, published

WORDS = 16
"""Two cache lines, as processors fetch them in pairs."""

# Words of a thread: the count that it has come to, for others to read, and the one its next call begins with.
_COUNT, _BEGIN = 0, 1
# Further ones of the first thread: the step that others begin with, -1 as long as there is none; the count at which
# they part; the looks at them beyond what it has patience for; and how often it has sent them home.
_STEP, _PARTED, _EXCESS, _SENT_HOME = 2, 3, 4, 5
# In so many meetings the first thread may look twice as often as it has patience for before it goes on alone: 11 us of
# LSTM(64).
_ENDURED = 32
# Calls that others are left out of at most. One that fails takes a quarter longer than one thread would.
_MOST_LEFT_OUT = 63


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
            meeting[_SENT_HOME] += 1
        publish(meeting, _COUNT, count if together else home)
        looks = 0
        for k in range(WORDS, meeting.size, WORDS):
            while published(meeting, k + _COUNT) < count:
                looks += 1
        meeting[_EXCESS] = max(0, meeting[_EXCESS] + looks - patience)
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
        self.meeting = np.zeros(size * WORDS, np.int64)
        self.pieces = np.tile(np.array([0, 1], np.int64), (size, 1, 1))
        """The whole sequence, for each of them."""
        self._tried = False
        self._sent_home = self._left_out = self._last_time = 0

    def ready(self) -> bool:
        """Whether to try it in the next call; where that failed again and again, ever more calls go by in between."""
        sent_home = int(self.meeting[_SENT_HOME])
        if sent_home != self._sent_home:
            self._left_out = self._last_time = min(2 * self._last_time + 1, _MOST_LEFT_OUT)
        elif self._tried:
            self._last_time = 0
        self._sent_home, self._tried = sent_home, self._left_out == 0
        self._left_out -= not self._tried
        return self._tried
