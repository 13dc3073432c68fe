"""Visual Genome with the split lists of Drill-down (Tan et al., NeurIPS 2019): region phrases as query turns."""

from xretrieve.data.visual_genome.features import convert
from xretrieve.data.visual_genome.load import annotations, extract, found, load

__all__ = ["annotations", "convert", "extract", "found", "load"]
