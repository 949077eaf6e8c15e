"""The base model's tokenizer: byte-level BPE with Nemotron's chat and tool tokens and single-digit tokens."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, START, END = "<pad>", "<|im_start|>", "<|im_end|>"
SPECIAL = [PAD, "<s>", "</s>", "<unk>", START, END]
MARKUP = [
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<tools>", "</tools>", "<function>", "</function>", "<function=", "<parameters>", "</parameters>"),
    *("<parameter>", "</parameter>", "<parameter=", "<name>", "</name>", "<type>", "</type>"),
    *("<description>", "</description>", "<enum>", "</enum>"),
]
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def train_tokenizer(texts: Iterable[str], vocabulary: int, max_length: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer on texts that are already rendered with the chat template.

    Every digit is one token, so that a number has as many tokens as digits. Every markup tag is one token, so that a
    sampled tool call cannot contain half a tag.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| ?\p{L}+|\n+ *| ?[^\s\p{L}\d]+| +"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL + MARKUP)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL + MARKUP,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token="<s>",
        eos_token=END,
        unk_token="<unk>",
        chat_template=TEMPLATE.read_text(encoding="utf-8"),
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
