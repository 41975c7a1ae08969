// Drives the unmodified official Node device SDK through a whole session and tells what it saw.
//
// Reads a JSON object from standard input (scope, registration_id, ca, websockets, gateway, and either key or the files
// certificate and certificate_key) and writes one JSON object per line to standard output: each has "step" and what
// belongs to it. Waits for a line on standard input where the other side has to act. Ends with step "done", or with 1.
'use strict';

const fs = require('fs');
const https = require('https');
const { Readable } = require('stream');

const { Client, Message, SharedAccessKeyAuthenticationProvider } = require('azure-iot-device');
const device = require('azure-iot-device-mqtt');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const provisioning = require('azure-iot-provisioning-device-mqtt');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');

const { say, told, calling, seen, run } = require('./steps');

const DPS = 'global.azure-devices-provisioning.net';
const MODEL = 'dtmi:example:Thermostat;1';
// Seconds a token lasts, and how much earlier the SDK makes another one.
const TOKEN_LIFE = 3600;
const TOKEN_MARGIN = 900;

async function provision(setup, identity) {
  const id = setup.registration_id;
  const security = setup.key ? new SymmetricKeySecurityClient(id, setup.key) : new X509Security(id, identity);
  const transport = setup.websockets ? new provisioning.MqttWs() : new provisioning.Mqtt();
  const client = ProvisioningDeviceClient.create(DPS, setup.scope, transport, security);
  client.setProvisioningPayload({ modelId: MODEL });
  const state = await calling((done) => client.register(done));
  say('provisioned', {
    status: state.status, hub: state.assignedHub, device: state.deviceId, payload: state.payload,
  });
  return state;
}

function hubClient(setup, state) {
  const transport = setup.websockets ? device.MqttWs : device.Mqtt;
  const name = `HostName=${state.assignedHub};DeviceId=${state.deviceId}`;
  const gateway = setup.gateway ? `;GatewayHostName=${setup.gateway}` : '';
  if (!setup.key) {
    return { client: Client.fromConnectionString(`${name};x509=true`, transport) };
  }
  const text = `${name};SharedAccessKey=${setup.key}${gateway}`;
  const keys = SharedAccessKeyAuthenticationProvider.fromConnectionString(text, TOKEN_LIFE, TOKEN_MARGIN);
  return { client: Client.fromAuthenticationProvider(keys, transport), keys };
}

/** Uploads a file with the SDK's own storage client, and one as an application does that brings its own. */
async function upload(client, ca) {
  const content = Buffer.from('lines of a log');
  await calling((done) => client.uploadToBlob('log.txt', Readable.from([content]), content.length, done));
  const place = await calling((done) => client.getBlobSharedAccessSignature('by hand.txt', done));
  const path = `/${place.containerName}/${encodeURIComponent(place.blobName)}${place.sasToken}`;
  const status = await calling((done) => {
    const headers = { 'x-ms-blob-type': 'BlockBlob', 'Content-Length': content.length };
    const request = https.request({ host: place.hostName, path, method: 'PUT', headers, ca }, (answer) => {
      answer.resume();
      answer.on('end', () => done(null, answer.statusCode));
    });
    request.on('error', done);
    request.end(content);
  });
  await calling((done) => client.notifyBlobUploadStatus(place.correlationId, true, status, 'stored', done));
  say('uploaded', { status, blob: place.blobName });
}

function numbered(number) {
  const message = new Message(String(number));
  message.messageId = `msg-${number}`;
  return message;
}

run(async () => {
  const setup = await told();
  const ca = fs.readFileSync(setup.ca, 'utf8');
  const identity = setup.key ? undefined : {
    cert: fs.readFileSync(setup.certificate, 'utf8'), key: fs.readFileSync(setup.certificate_key, 'utf8'),
  };
  const state = await provision(setup, identity);

  const { client, keys } = hubClient(setup, state);
  await client.setOptions({ ca, modelId: MODEL, ...identity });
  await client.open();
  say('connected');

  const message = new Message(JSON.stringify({ t: 21.5 }));
  message.messageId = 'msg-1';
  message.correlationId = 'c/1';
  message.contentType = 'application/json';
  message.contentEncoding = 'utf-8';
  message.properties.add('k', '');
  message.properties.add('note', 'a b&c=d/é');
  await client.sendEvent(message);
  say('sent');

  const twin = await client.getTwin();
  say('twin', { desired: twin.properties.desired, reported_version: twin.properties.reported.$version });
  await calling((done) => twin.properties.reported.update({ fw: '1.2.3', gone: null }, done));
  say('reported');
  await told();

  const method = seen('method');
  const inbox = seen('message');
  const desired = seen('desired');
  client.onDeviceMethod('reboot', (request, response) => {
    response.send(200, { ok: true }, (error) => {
      method.take({ name: request.methodName, payload: request.payload, error });
    });
  });
  // The SDK hands on what it has of the desired properties at once, and each change from then on.
  twin.on('properties.desired', (patch) => {
    if (patch.interval === 30) {
      desired.take({ patch });
    }
  });
  await calling((done) => {
    client.on('message', (got) => {
      client.complete(got, () => {
        const names = got.properties.propertyList.map(({ key, value }) => [key, value]);
        inbox.take({
          id: got.messageId, correlation: got.correlationId, properties: Object.fromEntries(names),
          payload: got.data.toString(),
        });
      });
    });
    // `on` subscribes without telling when that is done; a report and its answer come after it.
    twin.properties.reported.update({ listening: true }, done);
  });
  say('listening');
  await method.tell();
  await inbox.tell();
  await desired.tell();

  await upload(client, ca);

  // The other side breaks the connection before the acknowledgement of the next message.
  say('calm');
  await told();
  for (let number = 2; number < 7; number += 1) {
    await client.sendEvent(numbered(number));
  }
  say('sent again');

  if (keys) {
    const renewed = new Promise((resolve) => keys.once('newTokenAvailable', resolve));
    // Renews at once, over a new connection.
    keys.setTokenRenewalValues(2 * TOKEN_LIFE, TOKEN_MARGIN);
    await renewed;
  }
  await client.sendEvent(numbered(7));
  say('renewed');

  await client.close();
  say('done');
});
