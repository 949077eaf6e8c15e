"""How often each kept conversation is packed."""

import numpy as np
from numpy.typing import NDArray

from cascade.curation.report import Tally
from cascade.curation.selection import Segment
from cascade.recipe import Curation


def copies_of_sources(curation: Curation, segments: list[Segment], tally: Tally) -> dict[int, NDArray[np.int64]]:
    """By id of each share, how often each of its kept rows is packed."""
    return {id(share): np.ones(len(share.kept), np.int64) for segment in segments for share in segment.shares}
