"""A device on the unmodified official Python SDK, as its documentation advises to write one.

Reads one JSON object per line from standard input: first the setup (hub, device, key, ca), then commands {"send": N}.
Writes one JSON object per line to standard output: {"step": "connected"}, {"step": "told", "number": N, "error": text or
null} for each message, {"step": "desired", "version": V} for each change of the twin. Ends with its standard input.
"""

import asyncio
import json
import sys

from azure.iot.device import Message
from azure.iot.device.aio import IoTHubDeviceClient


def say(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


async def send(client, number):
    message = Message(str(number))
    message.message_id = f"msg-{number}"
    error = None
    try:
        await client.send_message(message)
    except Exception as problem:  # what the SDK tells its user, whatever that is
        error = type(problem).__name__
    say("told", number=number, error=error)


async def main():
    loop = asyncio.get_running_loop()
    setup = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    with open(setup["ca"], encoding="ascii") as file:
        ca = file.read()
    client = IoTHubDeviceClient.create_from_symmetric_key(
        symmetric_key=setup["key"], hostname=setup["hub"], device_id=setup["device"], server_verification_cert=ca
    )
    await client.connect()

    async def on_desired(patch):
        say("desired", version=patch["$version"])

    client.on_twin_desired_properties_patch_received = on_desired
    twin = await client.get_twin()
    say("desired", version=twin["desired"]["$version"])
    say("connected")
    sent = 0
    tasks = set()
    while True:
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line:
            break
        for _ in range(json.loads(line)["send"]):
            tasks.add(asyncio.create_task(send(client, sent)))
            sent += 1


asyncio.run(main())
