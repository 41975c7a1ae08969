// Drives the unmodified official Node device SDK as a module of an Edge device and tells what it saw.
//
// Reads a JSON object from standard input (environment, the variables of IoT Edge; websockets; call, a method to call of
// another module) and writes one JSON object per line to standard output: each has "step" and what belongs to it. Ends
// with step "done", or with 1.
'use strict';

const { Message, ModuleClient } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');

const { say, told, run } = require('./steps');

run(async () => {
  const setup = await told();
  Object.assign(process.env, setup.environment);
  const client = await ModuleClient.fromEnvironment(setup.websockets ? MqttWs : Mqtt);
  await client.open();
  say('connected');
  await client.sendOutputEvent('alarms', new Message('warm'));
  say('sent');
  const { device, module: target, method } = setup.call;
  const answer = await client.invokeMethod(device, target, method);
  say('called', { answer });
  await client.close();
  say('done');
});
