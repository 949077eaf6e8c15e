"""Model card and data card in Hugging Face's format, from a run's files. What is unknown is not claimed."""

from cascade.cards.data import data_card
from cascade.cards.model import model_card

__all__ = ["data_card", "model_card"]
