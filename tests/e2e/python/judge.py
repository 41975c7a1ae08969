"""Drives the unmodified official Python device SDK through a whole session and tells what it saw.

Reads a JSON object from standard input (scope, registration_id, ca, websockets, gateway, and either key or the files
certificate and certificate_key) and writes one JSON object per line to standard output: each has "step" and what belongs
to it. Waits for commands ("continue") on standard input where the
other side has to act. Ends with step "done", or with an exception and a status other than 0.
"""

import http.client
import json
import ssl
import sys
import threading

from azure.iot.device import IoTHubDeviceClient, Message, MethodResponse, ProvisioningDeviceClient, X509

LIMIT = 20


def say(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


class Seen:
    """Something that arrives on a thread of the SDK."""

    def __init__(self, step):
        self.step = step
        self.event = threading.Event()
        self.facts = None

    def take(self, **facts):
        self.facts = facts
        self.event.set()

    def wait(self):
        if not self.event.wait(LIMIT):
            raise TimeoutError(f"{self.step} did not arrive within {LIMIT} s")
        say(self.step, **self.facts)


def provision(setup, ca):
    options = {
        "provisioning_host": "global.azure-devices-provisioning.net",
        "registration_id": setup["registration_id"],
        "id_scope": setup["scope"],
        "server_verification_cert": ca,
        "websockets": setup["websockets"],
    }
    if "key" in setup:
        client = ProvisioningDeviceClient.create_from_symmetric_key(symmetric_key=setup["key"], **options)
    else:
        client = ProvisioningDeviceClient.create_from_x509_certificate(x509=certificate(setup), **options)
    client.provisioning_payload = {"modelId": "dtmi:example:Thermostat;1"}
    result = client.register()
    state = result.registration_state
    say("provisioned", status=result.status, hub=state.assigned_hub, device=state.device_id,
        payload=json.loads(state.response_payload))
    return state


def certificate(setup):
    return X509(cert_file=setup["certificate"], key_file=setup["certificate_key"])


def hub_client(setup, state, ca):
    options = {
        "hostname": state.assigned_hub,
        "device_id": state.device_id,
        "server_verification_cert": ca,
        "websockets": setup["websockets"],
        "product_info": "dtmi:example:Thermostat;1",
    }
    if setup["gateway"]:
        text = (f"HostName={state.assigned_hub};DeviceId={state.device_id};SharedAccessKey={setup['key']};"
                f"GatewayHostName={setup['gateway']}")
        return IoTHubDeviceClient.create_from_connection_string(
            text, **{name: options[name] for name in ("server_verification_cert", "websockets", "product_info")})
    if "key" in setup:
        return IoTHubDeviceClient.create_from_symmetric_key(symmetric_key=setup["key"], **options)
    return IoTHubDeviceClient.create_from_x509_certificate(x509=certificate(setup), **options)


def upload(client, setup):
    """Uploads a file as the SDK's users do: the SDK asks where to, other code sends it, the SDK tells how it went."""
    info = client.get_storage_info_for_blob("log.txt")
    context = ssl.create_default_context(cafile=setup["ca"])
    storage = http.client.HTTPSConnection(info["hostName"], context=context, timeout=LIMIT)
    path = f"/{info['containerName']}/{info['blobName']}{info['sasToken']}"
    storage.request("PUT", path, body=b"lines of a log", headers={"x-ms-blob-type": "BlockBlob"})
    status = storage.getresponse().status
    storage.close()
    client.notify_blob_upload_status(info["correlationId"], True, 200, "stored")
    say("uploaded", status=status, blob=info["blobName"])


def main():
    setup = json.loads(sys.stdin.readline())
    with open(setup["ca"], encoding="ascii") as file:
        ca = file.read()
    state = provision(setup, ca)

    client = hub_client(setup, state, ca)
    method, inbox, desired = Seen("method"), Seen("message"), Seen("desired")

    def on_method(request):
        client.send_method_response(MethodResponse.create_from_method_request(request, 200, {"ok": True}))
        method.take(name=request.name, payload=request.payload)

    def on_message(message):
        inbox.take(
            id=message.message_id,
            correlation=message.correlation_id,
            properties=message.custom_properties,
            payload=message.data.decode("utf-8"),
        )

    client.connect()
    say("connected", connected=client.connected)

    message = Message(json.dumps({"t": 21.5}))
    message.message_id = "msg-1"
    message.correlation_id = "c/1"
    message.content_type = "application/json"
    message.content_encoding = "utf-8"
    message.custom_properties["k"] = ""
    message.custom_properties["note"] = "a b&c=d/é"
    client.send_message(message)
    say("sent")

    say("twin", twin=client.get_twin())
    client.patch_twin_reported_properties({"fw": "1.2.3", "gone": None})
    say("reported")

    client.on_method_request_received = on_method
    client.on_message_received = on_message
    client.on_twin_desired_properties_patch_received = lambda patch: desired.take(patch=patch)
    say("listening")
    method.wait()
    inbox.wait()
    desired.wait()

    upload(client, setup)

    # The other side breaks the connection before the acknowledgement of the next message.
    say("calm")
    sys.stdin.readline()
    for number in range(2, 7):
        message = Message(str(number))
        message.message_id = f"msg-{number}"
        client.send_message(message)
    say("sent again", connected=client.connected)

    client.disconnect()
    client.shutdown()
    say("done")


if __name__ == "__main__":
    main()
