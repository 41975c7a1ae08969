// Drives the unmodified official Node device SDK as a module and tells what it saw.
//
// Reads a JSON object from standard input (ca, websockets, connection_string) and writes one JSON object per line to
// standard output: each has "step" and what belongs to it. Ends with step "done", or with 1.
'use strict';

const fs = require('fs');

const { Message, ModuleClient } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');

const { say, told, calling, seen, run } = require('./steps');

run(async () => {
  const setup = await told();
  const client = ModuleClient.fromConnectionString(setup.connection_string, setup.websockets ? MqttWs : Mqtt);
  await client.setOptions({ ca: fs.readFileSync(setup.ca, 'utf8') });
  await client.open();
  say('connected');

  await client.sendEvent(new Message('plain'));
  const message = new Message('{"t":1}');
  message.messageId = 'out-1';
  message.contentType = 'application/json';
  message.contentEncoding = 'utf-8';
  await client.sendOutputEvent('alarms', message);
  say('sent');

  const twin = await client.getTwin();
  say('twin', { desired: twin.properties.desired, reported_version: twin.properties.reported.$version });

  const method = seen('method');
  const input = seen('input');
  const desired = seen('desired');
  client.onMethod('flush', (request, response) => {
    response.send(201, null, (error) => method.take({ name: request.methodName, payload: request.payload, error }));
  });
  client.on('inputMessage', (name, got) => {
    client.complete(got, () => {
      const names = got.properties.propertyList.map(({ key, value }) => [key, value]);
      const properties = Object.fromEntries(names);
      input.take({ input: name, id: got.messageId, properties, payload: got.data.toString() });
    });
  });
  twin.on('properties.desired', (patch) => {
    if (patch.filter) {
      desired.take({ patch });
    }
  });
  // `on` subscribes without telling when that is done; a report and its answer come after it.
  await calling((done) => twin.properties.reported.update({ filter: { level: 3 } }, done));
  say('listening');
  await method.tell();
  await input.tell();
  await desired.tell();
  await client.close();
  say('done');
});
