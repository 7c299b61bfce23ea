"""Put the real output of `make demo` and a real answer into README.md: run it in the run wing's environment."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import demo

from offramp.http_client import HttpClient

README = demo.ROOT / "README.md"


def replaced(text: str, mark: str, language: str, content: str) -> str:
    """The text with the fenced block behind a mark filled anew."""
    pattern = re.compile(rf"(<!-- {mark} -->\n```{language}\n).*?(^```$)", re.MULTILINE | re.DOTALL)
    text, count = pattern.subn(lambda found: found[1] + content.strip("\n") + "\n" + found[2], text)
    assert count == 1, f"README.md has {count} blocks marked {mark}"
    return text


async def answer(image: Path) -> str:
    """What the device says of one image, laid out for reading."""
    async with demo.running(demo.BUNDLE) as system:
        client = HttpClient(system.url, "/predict")
        reply = await client.send(client.request("image/png", image.read_bytes()))
        client.close()
    document = json.loads(reply.body)
    answers = document.pop("answers")
    name, digest = document["bundle"].split(":")
    document["bundle"] = f"{name}:{digest[:8]}..."
    for hop in answers[0]["hops"]:
        hop.update({key: round(value, 2) for key, value in hop.items() if key != "tier"})
    hops = json.dumps(answers[0].pop("hops"))
    first = json.dumps(answers[0])[:-1]
    return f'{json.dumps(document)[:-1]},\n "answers": [{first},\n              "hops": {hops}}}]}}'


def main() -> None:
    shown = subprocess.run(
        [sys.executable, demo.__file__], check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout
    text = replaced(README.read_text(), "demo", "text", shown)
    text = replaced(text, "answer", "json", asyncio.run(answer(demo.IMAGES / "mnist" / "00000-7.png")))
    README.write_text(text)


if __name__ == "__main__":
    main()
