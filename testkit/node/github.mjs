// GitHub Enterprise over HTTPS: the emulator `emulate`, and before it what that lacks, as GitHub's documentation has it: tokens and
// scopes that are checked, pages of organisations, PKCE, teams in teams, suspended accounts. What it answers is held to GitHub's own
// OpenAPI description (api.github.com.json). By a port of its own, tests change it:
//   POST /remove/<login>/<team>    somebody leaves a team
//   POST /suspend/<login>          an account is suspended
//   POST /revoke/<login>           its tokens are revoked
//   POST /limit                    the next request is one too many
//   GET /invalid                   what was answered against the description
// Environment: PORT, CONTROL_PORT, EMULATE_PORT, CERT, KEY, CALLBACK, FOLDER.
import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { Ajv } from 'ajv';
import formats from 'ajv-formats';

const { PORT, CONTROL_PORT, EMULATE_PORT, CERT, KEY, CALLBACK, FOLDER } = process.env;
const BASE = `https://localhost:${PORT}`;
const API = `${BASE}/api/v3`;
const UP = `http://127.0.0.1:${EMULATE_PORT}`;
const ADMIN = { authorization: 'token admin', 'content-type': 'application/json' };
// Each is in the one after it.
const TEAMS = ['dev', 'engineering', 'everybody'];

const orgs = Array.from({ length: 130 }, (_, number) => ({ login: `org${number}`, name: `Org ${number}`, members: [{ login: 'alice' }] }));
fs.writeFileSync(`${FOLDER}/github.yaml`, JSON.stringify({
  tokens: { admin: { login: 'root', scopes: ['repo', 'user', 'admin:org'] } },
  github: {
    users: ['root', 'alice', 'outsider'].map((login) => ({ login, name: login.toUpperCase(), email: `${login}@corp.example` })),
    orgs: [{ login: 'corp', name: 'Corp', members: [{ login: 'root', role: 'admin' }, { login: 'alice' }] }, ...orgs],
    oauth_apps: [{ client_id: 'drover', client_secret: 'of-drover', name: 'Drover', redirect_uris: [CALLBACK] }],
  },
}));
const emulate = spawn('node', ['--import', './loopback.mjs', 'node_modules/emulate/dist/index.js', 'start', '-s', 'github', '-p', EMULATE_PORT,
  '--seed', `${FOLDER}/github.yaml`, '--base-url', UP], { cwd: import.meta.dirname, stdio: ['ignore', 'inherit', 'inherit'] });
emulate.on('exit', () => process.exit(1));
process.on('SIGTERM', () => emulate.kill());

const up = (path, options = {}) => fetch(UP + path, { redirect: 'manual', ...options });
const admin = async (method, path, body) => {
  const answer = await up(path, { method, headers: ADMIN, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer.status === 204 ? undefined : answer.json();
};
for (let tries = 0; ; tries++) {
  try { await up('/'); break; } catch (error) { if (tries > 100) throw error; await new Promise((done) => setTimeout(done, 100)); }
}
const teams = [];
for (const name of TEAMS) teams.push(await admin('POST', '/orgs/corp/teams', { name }));
await admin('PUT', '/orgs/corp/teams/dev/memberships/alice', { role: 'member' });

const description = JSON.parse(fs.readFileSync(`${import.meta.dirname}/api.github.com.json`));
const plain = (schema) => {
  if (Array.isArray(schema)) return schema.forEach(plain);
  if (!schema || typeof schema !== 'object') return;
  if (schema.nullable && schema.type) {
    schema.type = [].concat(schema.type, 'null');
    if (schema.enum && !schema.enum.includes(null)) schema.enum.push(null);
  }
  for (const word of ['nullable', 'example', 'examples', 'discriminator']) delete schema[word];
  Object.values(schema).forEach(plain);
};
const schemas = Object.fromEntries(['/user', '/user/orgs', '/user/teams', '/users/{username}'].map((path) => [path, description.paths[path].get.responses['200'].content['application/json'].schema]));
plain(description.components.schemas);
plain(schemas);
const ajv = new Ajv({ strict: false, allErrors: true });
formats.default(ajv);
ajv.addSchema({ $id: 'github', components: description.components });
const validators = Object.fromEntries(Object.entries(schemas).map(([path, schema]) =>
  [path, ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/components', '"github#/components')))]));
const invalid = [];

const issued = new Map(), suspended = new Set(), challenges = new Map(), verifiers = new Map();
let limited = 0;

const send = (response, status, body, headers = {}) => {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', ...headers });
  response.end(body === undefined ? '' : JSON.stringify(body).replaceAll(UP, API));
};
const answer = (response, path, body, headers) => {
  const valid = validators[path];
  if (!valid(JSON.parse(JSON.stringify(body).replaceAll(UP, API)))) invalid.push({ path, errors: valid.errors.map((error) => `${error.instancePath} ${error.message}`) });
  send(response, 200, body, headers);
};
const paged = (response, path, url, all) => {
  const size = Math.min(100, +(url.searchParams.get('per_page') ?? 30)), number = +(url.searchParams.get('page') ?? 1);
  const link = (page, rel) => { const to = new URL(`${API}${path}`); to.searchParams.set('per_page', size); to.searchParams.set('page', page); return `<${to}>; rel="${rel}"`; };
  const last = Math.max(1, Math.ceil(all.length / size));
  const links = [number > 1 && link(number - 1, 'prev'), number < last && link(number + 1, 'next'), number < last && link(last, 'last')].filter(Boolean);
  answer(response, path, all.slice((number - 1) * size, number * size), links.length ? { link: links.join(', ') } : {});
};
const organisation = async () => {
  const kept = Object.entries(await admin('GET', '/orgs/corp')).filter(([name, value]) => value !== null || name === 'description');
  return Object.fromEntries([...kept, ['archived_at', null], ['blog', 'https://corp.example']]);
};
const team = async (number) => {
  const parent = teams[number + 1];
  return {
    ...teams[number], type: 'organization', members_count: 1, repos_count: 0, created_at: '2026-01-01T00:00:00Z', updated_at: '2026-01-01T00:00:00Z',
    organization: await organisation(), parent: parent ? { ...parent, type: 'organization' } : null,
  };
};

const read = async (request) => { const parts = []; for await (const part of request) parts.push(part); return Buffer.concat(parts); };

const tooMany = (response) => {
  limited -= 1;
  return send(response, 403, { message: 'You have exceeded a secondary rate limit.' }, { 'retry-after': '1' });
};
// Of anybody, and of organisations, as users are.
const account = async (login) => {
  const user = await up(`/users/${login}`, { headers: ADMIN });
  if (user.ok) return user.json();
  const organisation = await up(`/orgs/${login}`, { headers: ADMIN });
  if (!organisation.ok) return undefined;
  const told = Object.keys(description.components.schemas['public-user'].properties);
  const kept = Object.fromEntries(Object.entries(await organisation.json()).filter(([name]) => told.includes(name)));
  const at = `${UP}/users/${login}`;
  return {
    gravatar_id: '', site_admin: false, name: null, company: null, location: null, hireable: null, bio: null, blog: null, email: null,
    followers_url: `${at}/followers`, following_url: `${at}/following{/other_user}`, gists_url: `${at}/gists{/gist_id}`,
    starred_url: `${at}/starred{/owner}{/repo}`, subscriptions_url: `${at}/subscriptions`, organizations_url: `${at}/orgs`,
    received_events_url: `${at}/received_events`, ...kept, type: 'Organization',
  };
};

async function api(request, response, url, path) {
  const isLimited = limited > 0;
  const app = Buffer.from((request.headers.authorization ?? '').replace(/^basic /i, ''), 'base64').toString();
  if (path.startsWith('/users/') && app === 'drover:of-drover') {
    if (isLimited) return tooMany(response);
    const found = await account(path.slice('/users/'.length));
    return found ? answer(response, '/users/{username}', found) : send(response, 404, { message: 'Not Found' });
  }
  const token = (request.headers.authorization ?? '').replace(/^(bearer|token) /i, ''), who = issued.get(token);
  if (!who) return send(response, 401, { message: 'Bad credentials', documentation_url: 'https://docs.github.com/rest', status: '401' });
  if (isLimited) return tooMany(response);
  if (suspended.has(who.login)) return send(response, 403, { message: 'Sorry. Your account was suspended.' });
  if (path === '/user') return answer(response, path, await (await up('/user', { headers: { authorization: `token ${token}` } })).json());
  if (path === '/user/orgs') return paged(response, path, url, await (await up('/user/orgs', { headers: { authorization: `token ${token}` } })).json());
  const number = teams.findIndex(({ id }) => path === `/teams/${id}`);
  if (number >= 0) return send(response, 200, await team(number));
  if (path !== '/user/teams') return send(response, 404, { message: 'Not Found' });
  if (!who.scopes.includes('read:org')) return send(response, 403, { message: 'You need at least read:org scope or user scope to list your teams.' });
  const theirs = [];
  for (const [at, { slug }] of teams.entries()) {
    const membership = await up(`/orgs/corp/teams/${slug}/memberships/${who.login}`, { headers: ADMIN });
    if (membership.ok) theirs.push(await team(at));
  }
  return paged(response, path, url, theirs);
}

async function oauth(request, response, url, path) {
  const body = request.method === 'GET' ? undefined : await read(request);
  if (path === '/login/oauth/authorize') challenges.set(url.searchParams.get('state'), url.searchParams.get('code_challenge'));
  if (path === '/login/oauth/access_token') {
    const form = new URLSearchParams(body.toString()), challenge = verifiers.get(form.get('code'));
    if (challenge && crypto.createHash('sha256').update(form.get('code_verifier') ?? '').digest('base64url') !== challenge) {
      return send(response, 200, { error: 'bad_verification_code', error_description: 'The code passed is incorrect or expired.' });
    }
    const given = await (await up(path, { method: 'POST', headers: { accept: 'application/json', 'content-type': 'application/x-www-form-urlencoded' }, body })).json();
    if (given.access_token) {
      const user = await (await up('/user', { headers: { authorization: `token ${given.access_token}` } })).json();
      issued.set(given.access_token, { login: user.login, scopes: (given.scope ?? '').split(/[ ,]+/) });
    }
    return send(response, 200, given);
  }
  const headers = { ...request.headers, 'accept-encoding': 'identity' };
  for (const name of ['host', 'connection', 'content-length']) delete headers[name];
  const from = await up(path + url.search, { method: request.method, headers, body });
  const to = { 'content-type': from.headers.get('content-type') ?? 'text/html' };
  const location = from.headers.get('location');
  if (location) {
    to.location = location.replaceAll(UP, BASE);
    const back = new URL(location, BASE);
    if (challenges.has(back.searchParams.get('state'))) verifiers.set(back.searchParams.get('code'), challenges.get(back.searchParams.get('state')));
  }
  response.writeHead(from.status, to);
  return response.end((await from.text()).replaceAll(UP, BASE));
}

const handle = async (request, response) => {
  const url = new URL(request.url, BASE);
  try {
    await (url.pathname.startsWith('/api/v3/') ? api(request, response, url, url.pathname.slice('/api/v3'.length)) : oauth(request, response, url, url.pathname));
  } catch (error) {
    console.error(error);
    if (!response.headersSent) response.writeHead(502);
    response.end(String(error));
  }
};
http.createServer(async (request, response) => {
  const [, what, login, slug] = request.url.split('/');
  if (what === 'remove') await admin('DELETE', `/orgs/corp/teams/${slug}/memberships/${login}`);
  else if (what === 'suspend') suspended.add(login);
  else if (what === 'revoke') for (const [token, who] of issued) { if (who.login === login) issued.delete(token); }
  else if (what === 'limit') limited = 1;
  else if (what !== 'invalid') response.statusCode = 404;
  response.end(JSON.stringify(invalid));
}).listen(+CONTROL_PORT, '127.0.0.1');
https.createServer({ cert: fs.readFileSync(CERT), key: fs.readFileSync(KEY) }, handle).listen(+PORT, '127.0.0.1');
