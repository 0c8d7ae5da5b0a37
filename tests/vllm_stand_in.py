"""What starts like vLLM's server and answers like the stub server, to be killed at will.

`STAND_IN` in the environment is a JSON object: `say` is printed before an end with exit code 1;
`dies_at` are the numbers of the chat requests (over all lives, from 0) at which it ends at once;
`sick_at` those from which on it answers 500, to /health as well. `folder` keeps one file a life
with the command line, and one a request. `answer` is said whatever is asked.

Where `tells_weights` is set, a model's answer is the last byte of its checkpoint's file. It takes
the key in VLLM_API_KEY alone, and writes its switches into the file of its life.
"""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from aiohttp import web

from tests.processes import ROOT
from tests.stub_server import Body, StubServer, running

PACKAGE = "vllm/entrypoints/openai/api_server.py"
SWITCHES = ("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING")


def install(folder: Path) -> str:
    """Put a package named vllm into a folder; gives the PYTHONPATH on which it is found."""
    program = folder / PACKAGE
    program.parent.mkdir(parents=True)
    program.write_text("from tests.vllm_stand_in import main\n\nmain()\n")
    return f"{folder}{os.pathsep}{ROOT}"


def main() -> None:
    """Serve until ended."""
    orders = json.loads(os.environ.get("STAND_IN", "{}"))
    options = _options()
    folder = Path(orders["folder"])
    life = len(list(folder.glob("life-*")))
    (folder / f"life-{life}").write_text(json.dumps(sys.argv[1:]))
    switches = {name: os.environ.get(name) for name in SWITCHES}
    (folder / f"switches-{life}").write_text(json.dumps(switches))
    if life < orders.get("stillborn", sys.maxsize) and "say" in orders:
        sys.stderr.write(orders["say"] + "\n")
        sys.exit(1)
    asyncio.run(_serve(options, orders, folder))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--middleware")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dtype")
    parser.add_argument("--quantization")
    parser.add_argument("--tool-call-parser")
    parser.add_argument("--chat-template-content-format", choices=("auto", "openai", "string"))
    parser.add_argument("--enable-auto-tool-choice", action="store_true")
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--max-lora-rank", type=int)
    parser.add_argument("--lora-modules", type=json.loads, nargs="+", default=[])
    return parser.parse_args()


class _Mortal(StubServer):
    sick = False

    def application(self) -> web.Application:
        application = super().application()
        application.router.add_get("/health", self.tell_health)
        return application

    async def tell_health(self, request: web.Request) -> web.Response:
        return web.Response(status=503 if self.sick else 200)


def _value(checkpoint: Path) -> int:
    (file,) = checkpoint.glob("*.safetensors")
    return file.read_bytes()[-1]


async def _serve(options: argparse.Namespace, orders: Body, folder: Path) -> None:
    models = {options.served_model_name: options.model}
    models |= {adapter["name"]: Path(adapter["path"]) for adapter in options.lora_modules}
    server = _Mortal(
        port=options.port,
        models=tuple(models),
        keys=(os.environ["VLLM_API_KEY"],),
        latency_s=0.02,
        answer=orders.get("answer"),
    )

    def respond(_: int, asked: Body) -> web.Response | None:
        if orders.get("tells_weights"):
            server.answers = (str(_value(models[asked["model"]])),)
        number = len(list(folder.glob("request-*")))
        (folder / f"request-{number}").touch()
        if number in orders.get("dies_at", ()):
            os._exit(3)
        if number in orders.get("sick_at", ()):
            server.sick = True
        return web.Response(status=500, text="engine dead") if server.sick else None

    server.respond = respond
    async with running(server):
        await asyncio.Event().wait()
