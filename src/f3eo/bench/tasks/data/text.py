"""Tiny Shakespeare: 1,115,394 characters, 65 of them distinct."""

from f3eo.bench.tasks.data.files import File, read

TEXT = File(
    "tinyshakespeare/input.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)


def shakespeare() -> str:
    """The whole text.

    Raises:
        FileNotFoundError, ValueError: see `f3eo.bench.tasks.data.files.read`.
    """
    return read(TEXT).decode("ascii")
