"""transformers' own schedules: what they are called, what they take, and the curve they play, faults and all.

The formulas are those of `transformers.optimization` (5.23), so that a built-in schedule can be shown beside ours without
importing transformers. They train step 0 at 0 where there is a warmup, and rise again or fall to 0 past their end.
"""

from __future__ import annotations
