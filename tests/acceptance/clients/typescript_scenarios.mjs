// What one version of the official TypeScript SDK does against the service:
//
//     node typescript_scenarios.mjs FOLDER SERVICE_URL CLIENT_KEY SANDBOX_URL
//
// FOLDER has the SDK in its node_modules. Each function of `scenarios` is one; the result is a line of JSON with the
// SDK's version, what went wrong with each, and how many requests of each model the service must have seen.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { randomUUID } from 'node:crypto';
import path from 'node:path';

const [folder, URL_, KEY, SANDBOX] = process.argv.slice(2);
const require = createRequire(path.join(folder, 'package.json'));
const { default: Anthropic } = require('@anthropic-ai/sdk');
const installed = path.join(folder, 'node_modules', '@anthropic-ai', 'sdk', 'package.json');
const VERSION = JSON.parse(readFileSync(installed, 'utf8')).version;
const DATED_API = Number(VERSION.split('.')[0]) >= 1; // anthropic-version 2026-10-21, and the key as a bearer token
const MODEL = 'anthropic/claude-opus-4.5';
const TOOL = {
  name: 'get_weather',
  description: 'The weather of a city',
  input_schema: { type: 'object', properties: { city: { type: 'string' } } },
};

const sent = []; // every request that left this process
const reached = {}; // by model, of calls that fail: how many requests must have reached the service
const count = (model, requests) => (reached[model] = (reached[model] ?? 0) + requests);
const counting = (url, init) => {
  sent.push({ url: String(url), headers: new Headers(init?.headers) });
  return fetch(url, init);
};
const newClient = (options = {}) =>
  new Anthropic({ baseURL: URL_, apiKey: KEY, authToken: null, maxRetries: 0, fetch: counting, ...options });
const client = newClient();
const ask = (text, fields = {}) => ({
  model: MODEL,
  max_tokens: 100,
  messages: [{ role: 'user', content: text }],
  ...fields,
});
const mark = () => `marker-${randomUUID()}`;

async function seen(marker) {
  const answer = await fetch(`${SANDBOX}/sandbox/requests`);
  const { requests } = await answer.json();
  return requests.filter((request) => JSON.stringify(request.body).includes(marker));
}

async function fails(call, check) {
  let result;
  try {
    result = await call();
  } catch (error) {
    await check(error);
    return;
  }
  assert.fail(`it was answered: ${JSON.stringify(result)}`);
}

async function expectError(model, kind, status, type, requests, words, options = {}) {
  const before = sent.length;
  await fails(
    () => newClient({ maxRetries: 1, ...options }).messages.create(ask('x', { model })),
    (error) => {
      assert.equal(error.constructor, kind, `${error.constructor.name}: ${error.message}`);
      assert.equal(error.status, status);
      assert.equal(error.error.error.type, type);
      assert.ok(error.message.includes(words), error.message);
      const id = error.requestID ?? error.request_id;
      assert.equal(id, error.error.request_id);
      assert.equal(sent.length - before, requests);
      count(status === 401 ? 'refused' : model, requests);
    },
  );
}

const { BadRequestError, AuthenticationError, PermissionDeniedError, NotFoundError, RateLimitError } = Anthropic;
const { ConflictError, InternalServerError, APIError, APIConnectionError, APIConnectionTimeoutError } = Anthropic;
const newer = (name, before) => Anthropic[name] ?? before; // an exception that older versions do not have

const scenarios = {
  async messages() {
    const message = await client.messages.create(ask('Grüße 🦀'));
    assert.ok(message.content[0].text.endsWith('Grüße 🦀'));
    assert.deepEqual([message.model, message.stop_reason, message.type], [MODEL, 'end_turn', 'message']);
    assert.ok(message.usage.output_tokens > 0);
    assert.match(message._request_id, /^req_/);
  },
  async a_stream_event_by_event() {
    const events = [];
    for await (const event of await client.messages.create(ask('Grüße 🦀', { stream: true }))) events.push(event);
    assert.equal(events[0].type, 'message_start');
    assert.equal(events.at(-1).type, 'message_stop');
    assert.equal(events[0].message.model, MODEL);
    const deltas = events.filter((event) => event.type === 'content_block_delta');
    assert.ok(deltas.map((event) => event.delta.text).join('').endsWith('Grüße 🦀'));
  },
  async a_stream_and_its_final_message() {
    const stream = client.messages.stream(ask('Hello'));
    let text = '';
    stream.on('text', (piece) => (text += piece));
    const message = await stream.finalMessage();
    assert.equal(message.content[0].text, text);
    assert.equal(message.stop_reason, 'end_turn');
  },
  async stop_sequences() {
    const message = await client.messages.create(ask('Hello', { stop_sequences: ['Sandbox'] }));
    assert.deepEqual([message.stop_reason, message.stop_sequence], ['stop_sequence', 'Sandbox']);
  },
  async tools() {
    const marker = mark();
    const choice = { tools: [TOOL], tool_choice: { type: 'tool', name: 'get_weather' } };
    const call = await client.messages.create(ask(marker, choice));
    const use = call.content.at(-1);
    assert.deepEqual([call.stop_reason, use.name, use.input], ['tool_use', 'get_weather', { city: 'sandbox' }]);
    const streamed = await client.messages.stream(ask(marker, choice)).finalMessage();
    assert.deepEqual(streamed.content.at(-1).input, { city: 'sandbox' });
    const result = { type: 'tool_result', tool_use_id: use.id, content: [{ type: 'text', text: '21 degrees' }] };
    const messages = [
      { role: 'user', content: marker },
      { role: 'assistant', content: call.content },
      { role: 'user', content: [result] },
    ];
    const answer = await client.messages.create({ model: MODEL, max_tokens: 100, messages, tools: [TOOL] });
    assert.ok(answer.content[0].text.endsWith('21 degrees'));
    assert.deepEqual((await seen(marker)).at(-1).body.messages, JSON.parse(JSON.stringify(messages)));
  },
  async images_and_documents() {
    const marker = mark();
    const data = Buffer.from('\x89PNG').toString('base64');
    const content = [
      { type: 'image', source: { type: 'base64', media_type: 'image/png', data } },
      { type: 'document', source: { type: 'base64', media_type: 'application/pdf', data } },
      { type: 'document', source: { type: 'text', media_type: 'text/plain', data: 'notes' }, title: 'notes' },
      { type: 'text', text: marker },
    ];
    await client.messages.create(ask(content));
    assert.deepEqual((await seen(marker))[0].body.messages[0].content, content);
  },
  async thinking_and_its_signature() {
    const marker = mark();
    const options = { max_tokens: 2000, thinking: { type: 'enabled', budget_tokens: 1024 } };
    const message = await client.messages.create(ask(marker, options));
    const { signature } = message.content[0];
    assert.ok(signature);
    const streamed = await client.messages.stream(ask(marker, options)).finalMessage();
    assert.equal(streamed.content[0].signature, signature);
    const turns = [{ role: 'user', content: marker }, { role: 'assistant', content: message.content }];
    await client.messages.create(ask('', { ...options, messages: [...turns, { role: 'user', content: 'go on' }] }));
    assert.equal((await seen(marker)).at(-1).body.messages[1].content[0].signature, signature);
  },
  async system_and_prompt_caching() {
    const marker = mark();
    const text = `Know this. ${marker} `.repeat(50);
    const system = [{ type: 'text', text, cache_control: { type: 'ephemeral' } }];
    const first = await client.messages.create(ask(marker, { system }));
    const second = await client.messages.create(ask(marker, { system }));
    await client.messages.create(ask(marker, { system: 'Be brief.' }));
    assert.ok(first.usage.cache_creation_input_tokens > 0);
    assert.equal(second.usage.cache_read_input_tokens, first.usage.cache_creation_input_tokens);
    assert.deepEqual((await seen(marker)).map((one) => one.body.system), [system, system, 'Be brief.']);
  },
  async system_messages_inside_the_conversation() {
    const marker = mark();
    const messages = [
      { role: 'user', content: marker },
      { role: 'system', content: 'From now on, be brief.' },
      { role: 'user', content: 'go on' },
    ];
    await client.messages.create(ask('', { messages }));
    assert.deepEqual((await seen(marker))[0].body.messages, messages);
  },
  async count_tokens() {
    const messages = [{ role: 'user', content: 'Hello '.repeat(200) }];
    const { input_tokens: tokens } = await client.messages.countTokens({ model: MODEL, messages });
    assert.ok(tokens >= 180 && tokens <= 260, String(tokens));
  },
  async models_in_pages() {
    const paged = [];
    for await (const model of client.models.list({ limit: 4 })) paged.push(model.id);
    const whole = (await client.models.list({ limit: 1000 })).data.map((model) => model.id);
    assert.deepEqual(paged, whole);
    assert.ok(whole.includes(MODEL));
  },
  async one_model() {
    for (const name of [MODEL, 'claude-opus-4-5-20251101']) {
      assert.equal((await client.models.retrieve(name)).id, name);
    }
    await fails(() => client.models.retrieve('nobody/has-this'), (error) => assert.ok(error instanceof NotFoundError));
  },
  async both_versions() {
    const marker = mark();
    await client.messages.create(ask(marker));
    for (const version of ['2023-06-01', '2026-10-21']) {
      await client.messages.create(ask(marker), { headers: { 'anthropic-version': version } });
    }
    const own = DATED_API ? '2026-10-21' : '2023-06-01';
    const versions = (await seen(marker)).map((one) => one.headers['anthropic-version']);
    assert.deepEqual(versions, [own, '2023-06-01', '2026-10-21']);
  },
  async both_credential_headers() {
    const before = sent.length;
    await client.messages.create(ask('as the SDK does'));
    await newClient({ apiKey: null, authToken: KEY }).messages.create(ask('as a token'));
    const headers = { 'x-api-key': KEY, authorization: `Bearer ${KEY}` };
    await client.messages.create(ask('as both'), { headers });
    const used = sent.slice(before).map(({ headers: h }) => [h.has('x-api-key'), h.has('authorization')]);
    assert.deepEqual(used, [DATED_API ? [false, true] : [true, false], [false, true], [true, true]]);
  },
  async betas_verbatim() {
    const marker = mark();
    const betas = ['interleaved-thinking-2025-05-14', 'new-thing-2026-12-01'];
    await client.beta.messages.create({ ...ask(marker), betas });
    await client.messages.create(ask(marker), { query: { beta: 'true' } });
    assert.equal((await seen(marker))[0].headers['anthropic-beta'].replaceAll(' ', ''), betas.join(','));
    assert.ok(sent.at(-1).url.endsWith('?beta=true'));
  },
  async leaving_in_mid_stream() {
    const marker = mark();
    const stream = await client.messages.create(ask(marker, { model: 'anthropic/claude-3-haiku', stream: true }));
    for await (const event of stream) if (event.type === 'content_block_delta') break;
    for (let tries = 0; tries < 100; tries += 1) {
      if ((await seen(marker))[0].left_at) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.fail('upstream was not left');
  },
  async timeouts() {
    const before = sent.length;
    const slow = newClient({ timeout: 300, maxRetries: 1 });
    await fails(
      () => slow.messages.create(ask('slow', { model: 'anthropic/claude-opus-4.1' })),
      (error) => assert.ok(error instanceof APIConnectionTimeoutError),
    );
    assert.equal(sent.length - before, 2);
    count('anthropic/claude-opus-4.1', 2);
  },
  error_400: () =>
    expectError('fail/context_length', BadRequestError, 400, 'invalid_request_error', 1, 'prompt is too long: 200001'),
  error_401: () =>
    expectError(MODEL, AuthenticationError, 401, 'authentication_error', 1, 'client key is not valid', {
      apiKey: 'not-a-key',
    }),
  error_403: () => expectError('fail/moderation', PermissionDeniedError, 403, 'permission_error', 1, 'moderation'),
  error_404: () => expectError('fail/no_endpoints', NotFoundError, 404, 'not_found_error', 1, 'No endpoints found'),
  error_409_is_sent_again: () =>
    expectError('fail/conflict', ConflictError, 409, 'conflict_error', 2, 'conflicts with another'),
  error_413: () =>
    expectError('fail/too_large', newer('ContentTooLargeError', APIError), 413, 'request_too_large', 1, 'too large'),
  error_422_is_a_400: () =>
    expectError('fail/unprocessable', BadRequestError, 400, 'invalid_request_error', 1, 'processed'),
  error_429_of_a_provider: () => expectError('fail/capacity', RateLimitError, 429, 'rate_limit_error', 2, 'No capacity'),
  error_500: () => expectError('fail/server_error', InternalServerError, 500, 'api_error', 2, 'Internal Server Error'),
  error_503() {
    const kind = newer('ServiceUnavailableError', InternalServerError);
    return expectError('fail/unavailable', kind, 503, 'overloaded_error', 2, 'unavailable');
  },
  error_504_is_not_sent_again() {
    const kind = newer('GatewayTimeoutError', InternalServerError);
    return expectError('fail/gateway_timeout', kind, 504, 'timeout_error', 1, 'may have been billed');
  },
  error_529() {
    const kind = newer('OverloadedError', InternalServerError);
    return expectError('fail/overloaded', kind, 529, 'overloaded_error', 2, 'overloaded');
  },
  error_529_of_what_no_key_can_pay() {
    const kind = newer('OverloadedError', InternalServerError);
    return expectError('fail/cannot_afford', kind, 529, 'overloaded_error', 1, 'smaller max_tokens');
  },
  async an_error_as_the_first_event() {
    const before = sent.length;
    await fails(
      () => newClient({ maxRetries: 1 }).messages.create(ask('x', { model: 'anthropic/claude-sonnet-4', stream: true })),
      (error) => assert.deepEqual([error.status, error.error.error.type], [502, 'api_error']),
    );
    assert.equal(sent.length - before, 2);
    count('anthropic/claude-sonnet-4', 2);
  },
  async an_error_in_mid_stream() {
    const before = sent.length;
    const kinds = [];
    await fails(
      async () => {
        const options = { model: 'anthropic/claude-3.7-sonnet', stream: true };
        for await (const event of await newClient({ maxRetries: 1 }).messages.create(ask('x', options))) {
          kinds.push(event.type);
        }
      },
      (error) => assert.ok(error instanceof APIError && /api_error/.test(error.message), String(error)),
    );
    assert.equal(kinds[0], 'message_start');
    assert.ok(!kinds.includes('message_stop'));
    assert.equal(sent.length - before, 1);
    count('anthropic/claude-3.7-sonnet', 1);
  },
  a_cut_stream_is_an_error: () =>
    fails(
      () => client.messages.stream(ask('x', { model: 'anthropic/claude-3-opus' })).finalMessage(),
      (error) => assert.match(String(error), /timeout_error/),
    ),
  a_service_that_is_away: () =>
    fails(
      () => newClient({ baseURL: 'http://127.0.0.1:9' }).messages.create(ask('x')),
      (error) => assert.ok(error instanceof APIConnectionError),
    ),
};

const results = {};
for (const [name, scenario] of Object.entries(scenarios)) {
  try {
    await scenario();
    results[name] = { problem: '' };
  } catch (error) {
    results[name] = { problem: String(error.stack ?? error).slice(0, 2000) };
  }
}
console.log(JSON.stringify({ version: VERSION, results, reached }));
process.exit(0);
