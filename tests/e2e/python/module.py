"""Drives the unmodified official Python device SDK as a module and tells what it saw.

Reads a JSON object from standard input (hub, device, module, ca, websockets, and one of: connection_string; the files
certificate and certificate_key; environment, the variables of IoT Edge, and then call, a method to call of another
module) and writes one JSON object per line to standard output: each has "step" and what belongs to it. Ends with step
"done", or with an exception and a status other than 0.
"""

import json
import os
import sys

from azure.iot.device import IoTHubModuleClient, Message, MethodResponse, X509

from judge import Seen, say


def module_client(setup, ca):
    if "environment" in setup:
        os.environ.update(setup["environment"])
        return IoTHubModuleClient.create_from_edge_environment(websockets=setup["websockets"])
    options = {"server_verification_cert": ca, "websockets": setup["websockets"]}
    if "connection_string" in setup:
        return IoTHubModuleClient.create_from_connection_string(setup["connection_string"], **options)
    return IoTHubModuleClient.create_from_x509_certificate(
        x509=X509(cert_file=setup["certificate"], key_file=setup["certificate_key"]),
        hostname=setup["hub"], device_id=setup["device"], module_id=setup["module"], **options)


def main():
    setup = json.loads(sys.stdin.readline())
    with open(setup["ca"], encoding="ascii") as file:
        ca = file.read()
    client = module_client(setup, ca)
    method, inbox, desired = Seen("method"), Seen("input"), Seen("desired")

    def on_method(request):
        client.send_method_response(MethodResponse.create_from_method_request(request, 201, None))
        method.take(name=request.name, payload=request.payload)

    def on_message(message):
        inbox.take(input=message.input_name, id=message.message_id, properties=message.custom_properties,
                   payload=message.data.decode("utf-8"))

    client.connect()
    say("connected", connected=client.connected)
    client.send_message("plain")
    message = Message('{"t":1}', content_encoding="utf-8", content_type="application/json")
    message.message_id = "out-1"
    client.send_message_to_output(message, "alarms")
    say("sent")
    say("twin", twin=client.get_twin())
    client.patch_twin_reported_properties({"filter": {"level": 3}})
    say("reported")
    client.on_method_request_received = on_method
    client.on_message_received = on_message
    client.on_twin_desired_properties_patch_received = lambda patch: desired.take(patch=patch)
    say("listening")
    method.wait()
    inbox.wait()
    desired.wait()
    if "call" in setup:
        answer = client.invoke_method(setup["call"]["method"], setup["call"]["device"], setup["call"]["module"])
        say("called", answer=answer)
    client.disconnect()
    client.shutdown()
    say("done")


if __name__ == "__main__":
    main()
