"""`cascade import`: tiny checkpoints in every state that models come in, and one GGUF file written here."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from cascade import chat
from cascade.cli import main
from cascade.commands.import_model import importer, loading
from cascade.commands.import_model.capabilities import capabilities
from cascade.errors import CascadeError
from cascade.policy import make_policy
from tests import hub
from tests.chat import test_round_trips
from tests.policy import tiny

GEMMA = (
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content + "
    "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def llama(rows: int = tiny.VOCABULARY, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=rows, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=tied, initializer_range=0.3,
        bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def made(folder: Path, model: LlamaForCausalLM | None = None, **changes: object) -> Path:
    """A checkpoint as people publish them: `changes` are attributes of the tokenizer."""
    tokenizer = tiny.tokenizer()
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    (model or llama()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def imported(source: Path | str, out: Path, **options: object) -> list[str]:
    return list(importer.import_model(str(source), out, **options))  # type: ignore[arg-type]


def table(lines: list[str]) -> dict[str, str]:
    rows = lines[lines.index("") + 2 :]
    return {line[:21].strip(): line[21:].strip() for line in rows if not line.startswith(("written", "another"))}


@pytest.mark.parametrize("name", importer.TEMPLATES)
def test_named_templates_express_all_that_they_say(name: str, tmp_path: Path) -> None:
    lines = imported(made(tmp_path / "m"), tmp_path / "out", chat_template=name)
    lost = [what for what, words in table(lines).items() if words.startswith("no")]
    assert lost == (["thinking"] if name == "hermes" else [])
    assert table(lines)["context"] == "512 tokens"


def test_what_a_template_loses_is_said(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = GEMMA
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    found = {c.name: c.problem for c in capabilities(tokenizer)}
    assert [name for name, problem in found.items() if problem is None] == ["messages", "several turns", "system turns"]
    assert "reasoning" in str(found["thinking"])
    assert "tool" in str(found["tools"])


@pytest.mark.parametrize("name", list(test_round_trips.ENDS))
def test_a_template_expresses_the_same_after_the_import(name: str, tmp_path: Path) -> None:
    """Phi-3's writes eos_token, which the import changes."""
    tokenizer = copy.deepcopy(test_round_trips.tokenizer(name))
    before = {c.name: c.problem for c in capabilities(tokenizer)}
    llama(rows=300).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    imported(tmp_path / "m", tmp_path / "out")
    saved = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert saved.eos_token == test_round_trips.ENDS[name][1]
    assert {c.name: c.problem for c in capabilities(saved)} == before
    assert before["messages"] is None


def test_a_response_ends_where_the_template_ends_a_turn(tmp_path: Path) -> None:
    """Gemma's case: the tokenizer's eos is not what ends a turn. transformers' generate stops at either."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    tokenizer.chat_template, tokenizer.eos_token, tokenizer.pad_token = GEMMA, "<pad>", None
    model = llama()
    model.generation_config = GenerationConfig(eos_token_id=0, temperature=0.6, do_sample=True)
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    lines = imported(tmp_path / "m", tmp_path / "out")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    end = loaded.convert_tokens_to_ids("<end_of_turn>")
    assert (loaded.eos_token, loaded.pad_token) == ("<end_of_turn>", "<end_of_turn>")
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == [end, 0]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.eos_token_id == end
    text = "\n".join(lines)
    assert "<end_of_turn>, which ends the template's turns (was <pad>)" in text
    assert "temperature 0.6" in text
    assert "padding: <end_of_turn> (it had none)" in text


def test_tokens_of_a_template_are_added_and_start_as_the_mean_of_their_pieces(tmp_path: Path) -> None:
    model = llama(rows=262, tied=False)
    source = made(tmp_path / "m", model)
    lines = imported(source, tmp_path / "out", chat_template="nemotron", add_tokens=True)
    assert "tokens added: <think> </think> <tool_call> </tool_call>" in lines
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    result = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    pieces = chat.encode(tiny.tokenizer(), "<think>")
    assert len(pieces) == 7
    [token] = chat.encode(tokenizer, "<think>")
    for matrix, before in (
        (result.get_input_embeddings().weight, model.get_input_embeddings().weight),
        (result.get_output_embeddings().weight, model.get_output_embeddings().weight),
    ):
        torch.testing.assert_close(matrix[token], before[pieces].mean(0))
        torch.testing.assert_close(matrix[:259], before[:259])  # all others stay
    assert tokenizer.decode([token]) == "<think>"
    policy = make_policy("hf", tmp_path / "out", None)
    assert len(policy.tokenizer) <= policy.model.get_input_embeddings().num_embeddings


def test_a_padded_vocabulary_is_used_before_it_grows(tmp_path: Path) -> None:
    lines = imported(made(tmp_path / "m"), tmp_path / "out", chat_template="qwen3", add_tokens=True)
    result = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert result.get_input_embeddings().num_embeddings == tiny.VOCABULARY
    assert f"vocabulary: 263 tokens, padded to {tiny.VOCABULARY}; the output matrix is the embedding" in lines


def test_weights_keep_their_type_unless_asked_otherwise(tmp_path: Path) -> None:
    source = made(tmp_path / "m", llama().to(torch.bfloat16))
    imported(source, tmp_path / "same", chat_template="hermes")
    imported(source, tmp_path / "wide", chat_template="hermes", dtype="float32")
    assert loading.load(str(tmp_path / "same")).model.dtype == torch.bfloat16
    assert loading.load(str(tmp_path / "wide")).model.dtype == torch.float32


def test_the_models_own_card_comes_along(tmp_path: Path) -> None:
    source = made(tmp_path / "m")
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    imported(source, tmp_path / "out", chat_template="hermes")
    assert (tmp_path / "out" / "README.md").read_text() == "---\nlicense: apache-2.0\n---\n"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere", "neither a directory, a .gguf file, nor a name on the Hub"),
        ("nothing.gguf", "nothing.gguf: no such file"),
        ("./a/b", "neither a directory"),
    ],
)
def test_sources_that_are_none(source: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(CascadeError, match=words):
        imported(source, tmp_path / "out")


def test_errors_name_what_to_do(tmp_path: Path) -> None:
    source = made(tmp_path / "m", chat_template=None)
    with pytest.raises(CascadeError, match=r"no chat template; give one: --chat-template hermes"):
        imported(source, tmp_path / "out")
    with pytest.raises(CascadeError, match="neither a file nor one of hermes, nemotron, qwen3"):
        imported(source, tmp_path / "out", chat_template="hermess")
    (tmp_path / "out").mkdir()
    with pytest.raises(CascadeError, match="exists already"):
        imported(source, tmp_path / "out", chat_template="hermes")


def test_a_template_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(GEMMA.replace("<start_of_turn>", "<|begin|>").replace("<end_of_turn>", "<|done|>"))
    lines = imported(made(tmp_path / "m"), tmp_path / "out", chat_template=str(file))
    assert "tokens added: <|begin|> <|done|>" in lines
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token == "<|done|>"


def test_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["import", "m", "--chat-template", "hermes"])
    assert result.exit_code == 0, result.output
    assert "engine hf computes its logits as transformers does" in result.output
    assert (tmp_path / "models" / "base" / "model.safetensors").is_file()
    again = CliRunner().invoke(main, ["import", "m"])
    assert (again.exit_code, again.output.splitlines()[-1][:32]) == (1, "Error: models/base: exists alrea")


def test_gguf_needs_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == "gguf" else sys)
    with pytest.raises(CascadeError, match=r"reading GGUF needs gguf; pip install 'cascade-posttrain\[gguf\]'"):
        imported(tmp_path / "m.gguf", tmp_path / "out")


def test_a_gguf_file_becomes_a_plain_checkpoint(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    model = llama(rows=260)
    write_gguf(gguf, model, tmp_path / "m.gguf")
    lines = imported(tmp_path / "m.gguf", tmp_path / "out", chat_template="hermes")
    assert "m.gguf, dequantized to float32" in lines[0]
    result = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(result) is LlamaForCausalLM
    assert not hasattr(result.config, "quantization_config")
    tokens = torch.tensor([[5, 17, 40, 3]])
    with torch.no_grad():
        # 8-bit weights in blocks of 32.
        torch.testing.assert_close(result(tokens).logits, model(tokens).logits, atol=0.15, rtol=0.05)
    assert make_policy("hf", tmp_path / "out", None).tokenizer.eos_token == "<|im_end|>"


def write_gguf(gguf: object, model: LlamaForCausalLM, path: Path) -> None:
    """llama.cpp's layout: other names, and rows of queries and keys permuted."""
    from gguf import GGMLQuantizationType, GGUFWriter, quants  # type: ignore[import-not-found]

    config, tokenizer = model.config, tiny.tokenizer()
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(config.vocab_size)
    words = [*(str(tokenizer.convert_ids_to_tokens(n)) for n in range(259)), "ab"]
    words[0] = "<|endoftext|>"  # transformers adds it where a vocabulary of this kind lacks it.
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3 if n < 3 else 1 for n in range(260)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(0)
    state = model.state_dict()
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    for layer in range(config.num_hidden_layers):
        for ours, theirs in names.items():
            value = state[f"model.layers.{layer}.{ours}.weight"]
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(theirs)
            if heads:
                value = value.view(heads, 2, 4, 32).transpose(1, 2).reshape(heads * 8, 32)
            tensors[f"blk.{layer}.{theirs}.weight"] = value
    for name, value in tensors.items():
        array = value.float().contiguous().numpy()
        if array.ndim == 1 or array.shape[1] % 32:
            writer.add_tensor(name, array)
            continue
        packed = quants.quantize(array, GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_models_come_from_the_hub(tmp_path: Path) -> None:
    for name in ("tiny", "cut"):
        made(tmp_path / "hub" / "models" / "org" / name)
    (tmp_path / "hub/models/org/tiny/pytorch_model.bin").write_bytes(b"never asked for")
    (tmp_path / "hub/models/org/cut/more.safetensors").write_bytes(b"x" * 1000)
    with hub.serve(tmp_path / "hub") as server:
        server.status, server.broken = {"org/gated": 403, "org/private": 401, "org/down": 503}, {"more.safetensors"}
        script = f"""
        from click.testing import CliRunner
        from cascade.cli import main

        def answer(name):
            return CliRunner().invoke(main, ["import", name, "--out", f"{tmp_path}/{{name}}"]).output
        """
        names = ["org/tiny", "org/missing", "org/gated", "org/private", "org/down", "org/cut"]
        found = hub.run(script, names, server, tmp_path / "home")
    assert found["org/tiny"].startswith("org/tiny: LlamaForCausalLM, ")
    assert found["org/tiny"].endswith(f"written to {tmp_path}/org/tiny\n")
    given, arrived = (
        AutoModelForCausalLM.from_pretrained(d) for d in (tmp_path / "hub/models/org/tiny", tmp_path / "org/tiny")
    )
    assert all(torch.equal(value, arrived.state_dict()[key]) for key, value in given.state_dict().items())
    assert not any("pytorch_model.bin" in line for line in server.asked)
    token = "set HF_TOKEN or run `hf auth login`"
    assert found["org/missing"] == f"Error: org/missing: not on the Hub, or private; mend the name, or {token}\n"
    assert found["org/private"] == f"Error: org/private: not on the Hub, or private; mend the name, or {token}\n"
    assert found["org/gated"] == f"Error: org/gated: gated; accept its terms on the Hub, then {token}\n"
    for name, cause in (("down", "503"), ("cut", "peer closed connection")):
        assert found[f"org/{name}"].startswith(f"Error: org/{name}: cannot be downloaded from the Hub (")
        assert cause in found[f"org/{name}"]
        assert found[f"org/{name}"].count("\n") == 1
        assert not (tmp_path / "org" / name).exists()
