"""What is a secret and what only looks like one."""

import subprocess
import sys
from pathlib import Path

import pytest

from omnichat.secrets import MASK, looks_secret, mask_logs, masked, secret_values


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("hf://hf_AbCdEfGhIjKlMnOpQrStUv/x", "hf_AbCdEfGhIjKlMnOpQrStUv"),
        ("use sk-proj-aaaaBBBBccccDDDD1111", "sk-proj-aaaaBBBBccccDDDD1111"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ", "ghp_0123456789abcdefghijABCDEFGHIJ"),
        ("github_pat_0123456789abcdefghijABCDEFGHIJ", "github_pat_0123456789abcdefghijABCDEFGHIJ"),
        ("glpat-0123456789abcdefghij", "glpat-0123456789abcdefghij"),
        ("AKIAIOSFODNN7EXAMPLE in a path", "AKIAIOSFODNN7EXAMPLE"),
        ("as ASIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE"),
        ("AIza0123456789abcdefghijABCDEFGHIJ01234", "AIza0123456789abcdefghijABCDEFGHIJ01234"),
        ("xoxb-0123456789-abcdef", "xoxb-0123456789-abcdef"),
        ("wandb_v1_0123456789abcdefghijABCDEFGHIJ", "wandb_v1_0123456789abcdefghijABCDEFGHIJ"),
        ("Bearer eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK", "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK"),
        ("https://user:correct-horse@host/data", "correct-horse"),
        ("https://oauth2-battery-1@host/data", "oauth2-battery-1"),
        ("https://host/x?access_token=battery-staple", "battery-staple"),
        ('{"apiKey": "0a1b2c3d4e5f"}', "0a1b2c3d4e5f"),
        ("WANDB_API_KEY=00112233445566778899", "00112233445566778899"),
        ("PGPASSWORD=correct-horse-9 psql", "correct-horse-9"),
    ],
)
def test_secrets_are_masked(text: str, secret: str) -> None:
    """Each of these stood in somebody's public log."""
    assert secret not in masked(text)
    assert MASK in masked(text)
    assert secret not in str(masked({"a": [text, (text,)], text: 1}))


def test_what_only_looks_like_one_stays() -> None:
    """A masked setting or reply would be a silent change of what a run says of itself."""
    harmless = {
        "use_cls_token": True,
        "num_memory_tokens": 64,
        "tokens_per_step": "17500 of them",
        "tokenizer": "checkpoints/llama/tokenizer.json",
        "said": "The key: everything. My token: gratitude! What a secret, remember?",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "address": "https://example.org:8080/path",
        "user": "ssh://git@example.org/path, https://example.org/someone@example",
        "override": "model.use_cls_token=true trainer.micro_batch_tokens=123456789",
    }
    assert masked(harmless) == harmless
    assert masked({"api_key": "whatever-it-is", "n": 1}) == {"api_key": MASK, "n": 1}
    assert masked({"key": "C minor", "pad_token": "<pad>"}) == {"key": "C minor", "pad_token": "<pad>"}
    assert not any(map(looks_secret, ("use_tokens", "TOKENIZERS_PARALLELISM", "num_memory_tokens", "monkey")))


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "authToken", "x.token", "token", "WANDB_API_KEY", "OPENAI_APIKEY", "signingKey"),
        *("aws-secret-access-key", "AWS_CREDENTIALS", "gcp_credential", "CLIENT_SECRET", "PGPASSWORD", "db_passwd"),
        "SSH_PASSPHRASE",
    ],
)
def test_names_of_secrets(name: str) -> None:
    """What a service issues without a form of its own is known by nothing else."""
    assert looks_secret(name)
    assert masked({name: "0a1b2c3d4e5f"}) == {name: MASK}


def test_environment(tmp_path: Path) -> None:
    """A secret without a form of its own is known by its variable; the path of a key file is none."""
    (tmp_path / "key.pem").write_text("")
    found = secret_values(
        {
            "HF_TOKEN": "longer-than-eight",
            "myApiKey": "longer-than-eight-too",
            "PGPASSWORD": "longer-than-eight-by-far",
            "NUM_TOKENS": "123456789",
            "B_KEY": "/looks-like-a-path",
            "A_KEY": str(tmp_path / "key.pem"),
            "USE_CLS_TOKEN": "true",
        }
    )
    assert found == [
        "longer-than-eight-by-far",
        "longer-than-eight-too",
        "/looks-like-a-path",
        "longer-than-eight",
    ]


def test_logs_of_other_programs_are_masked(tmp_path: Path) -> None:
    """They quote what they were given, byte for byte; what lies elsewhere, or holds no key, is left as it is."""
    key, plain = b"password=correct-horse-9 \xff\n", b"nothing \xff\n"
    folder, elsewhere = tmp_path / "run" / "wandb", tmp_path / "elsewhere.log"
    folder.mkdir(parents=True)
    elsewhere.write_bytes(key)
    (folder / "link.log").symlink_to(elsewhere)
    for name, content in (("debug.log", key), ("plain.log", plain), ("data.bin", key)):
        (folder / name).write_bytes(content)
    mask_logs(tmp_path / "run")
    assert (folder / "debug.log").read_text(encoding="utf-8") == f"password={MASK} \ufffd\n"
    assert (folder / "plain.log").read_bytes() == plain
    assert (folder / "data.bin").read_bytes() == elsewhere.read_bytes() == key


def test_tracebacks_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that quotes an address must not show its password."""
    monkeypatch.setenv("DB_PASSWORD", "canary-in-the-mine")
    code = "from omnichat.secrets import mask_output; import os; mask_output(); print(os.environ['DB_PASSWORD'])\n"
    code += "import sys; sys.stdout.writelines([os.environ['DB_PASSWORD'], '\\n'])\n"
    code += "raise ValueError('no such table: ' + os.environ['DB_PASSWORD'])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ValueError" in ended.stderr
    assert ended.stdout == f"{MASK}\n{MASK}\n"
    assert "canary-in" not in ended.stderr
