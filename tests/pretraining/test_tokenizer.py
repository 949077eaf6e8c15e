"""The base model's tokenizer: nothing is lost, digits stand alone, markup is atomic."""

import random

import pytest
from tokenizers import Tokenizer

from cascade.chat import encode
from cascade.pretraining.tokenizer import END, MARKUP, PAD, SPECIAL, START, train_tokenizer

ODD = [
    "",
    " ",
    "  two  spaces  ",
    "\n\n  indented\n\tand a tab\t\n",
    "line\r\nends\rof\u2028all\u2029kinds\x0b\x0c",
    "nbsp\u00a0thin\u2009zero\u200bwidth\u200djoiner\ufeff",
    "Ça coûte 3,50 € à Zürich",
    "e\u0301 is not é",
    "漢字かな交じり文 한국어",
    "مرحبا ١٢٣ שלום",
    "👩‍👩‍👧‍👦🏳️‍🌈 ½ ² Ⅷ",
    "\x00\x01\x7f\x85",
    "\U0010ffff\ue000",
    "a < b > c <think <|im_start <tool_call",
    "<s> and </s> and <unk>",
    "x = {'a': [1, 2.5e-3]}  # done",
]


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_text_comes_back_as_it_was(tokenizer, text):
    assert tokenizer.decode(encode(tokenizer, text)) == text


def test_random_text_comes_back_as_it_was(tokenizer):
    rng = random.Random(0)
    ranges = [(0x20, 0x7E), (0x00, 0x24F), (0x600, 0x6FF), (0x2000, 0x206F), (0x4E00, 0x4F00), (0x1F300, 0x1F6FF)]
    for _ in range(300):
        low, high = rng.choice(ranges)
        text = "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 40)))
        assert tokenizer.decode(encode(tokenizer, text)) == text


def test_each_digit_is_a_token_wherever_it_stands(tokenizer):
    for text in ("1234567890", " 12", "a1b22", "3.14", "-7", "<think>42</think>", "12 13"):
        tokens = tokenizer.convert_ids_to_tokens(encode(tokenizer, text))
        assert [t for t in tokens if any(c.isdigit() for c in t)] == [c for c in text if c.isdigit()]


def test_words_that_were_often_seen_are_one_token_with_their_space(tokenizer):
    assert tokenizer.convert_ids_to_tokens(encode(tokenizer, " answer")) == ["Ġanswer"]


@pytest.mark.parametrize("tag", [*SPECIAL, *MARKUP])
def test_markup_is_one_token_even_inside_a_word(tokenizer, tag):
    for text in (tag, f"x{tag}y", f" {tag}\n", tag + tag):
        assert encode(tokenizer, text).count(tokenizer.convert_tokens_to_ids(tag)) == text.count(tag)


def test_special_tokens_have_their_roles(tokenizer):
    assert (tokenizer.pad_token, tokenizer.eos_token) == (PAD, END)
    assert tokenizer.pad_token_id == 0
    assert len({tokenizer.convert_tokens_to_ids(token) for token in (PAD, START, END)}) == 3
    assert tokenizer.model_max_length == 256


def test_the_vocabulary_is_no_larger_than_asked(tokenizer):
    assert len(tokenizer) <= 320
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_equal_texts_give_equal_tokenizers_and_saving_changes_nothing(tokenizer, tmp_path):
    texts = ["What is the sum of 12 and 30? The answer is 42."] * 5
    assert train_tokenizer(texts, 320, 256).backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    tokenizer.save_pretrained(tmp_path)
    again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ODD:
        assert again.encode(text, add_special_tokens=False).ids == encode(tokenizer, text)
