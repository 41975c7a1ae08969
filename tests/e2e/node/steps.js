// What the scripts share: steps on standard output, commands on standard input, callbacks as promises.
'use strict';

const readline = require('readline');

const LIMIT = 20000;

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Tells one step with its facts. */
function say(step, facts) {
  process.stdout.write(JSON.stringify({ step, ...facts }) + '\n');
}

/** Returns the next line of standard input. */
async function told() {
  const { value, done } = await lines.next();
  if (done) {
    throw new Error('standard input ended');
  }
  return JSON.parse(value);
}

/** Returns what `start` hands to the callback it is given. */
function calling(start) {
  return new Promise((resolve, reject) => start((error, result) => (error ? reject(error) : resolve(result))));
}

/** Something that arrives in a callback of the SDK: `take` its facts there, `tell` them when it is its turn. */
function seen(step) {
  let take;
  const facts = new Promise((resolve) => {
    take = resolve;
  });
  const tell = async () => {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${step} did not arrive within ${LIMIT} ms`)), LIMIT);
    });
    const what = await Promise.race([facts, late]);
    clearTimeout(timer);
    say(step, what);
  };
  return { take, tell };
}

/** Runs a session and ends the process, with 1 where it fails. */
function run(session) {
  session().then(
    () => process.exit(0),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
}

module.exports = { say, told, calling, seen, run };
