// A certified OpenID Provider (panva/oidc-provider) over HTTPS, with people of its own, and a port by which tests change it:
//   POST /user/<login> {fields}   what is known of somebody, or that they are disabled
//   POST /rotate                  a new signing key in the place of the old one
// Environment: PORT, CONTROL_PORT, CERT, KEY, CALLBACK.
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { Provider } from 'oidc-provider';

const { PORT, CONTROL_PORT, CERT, KEY, CALLBACK } = process.env;
const ISSUER = `https://localhost:${PORT}`;

const users = {
  alice: { password: 'of-alice', sub: 'a1', name: 'Alice', groups: ['engineering', 'k8s-admins'] },
  bob: { password: 'of-bob', sub: 'b1', name: 'Bob', groups: 'single-text' },
  // The claims of somebody who would like to be more.
  mallory: { password: 'of-mallory', sub: 'system:admin', name: 'Mallory', groups: ['system:masters'], login: 'system:admin' },
  newline: { password: 'of-newline', sub: 'n1', name: 'N', groups: ['dev\nInjected: x'] },
};
const loginOf = (user) => user.login ?? Object.keys(users).find((name) => users[name] === user);
const bySub = (sub) => Object.values(users).find((user) => user.sub === sub && !user.disabled);

const key = (alg) => {
  const { privateKey } = alg === 'ES256' ? crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }) : crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: crypto.randomUUID(), use: 'sig', alg };
};
let keys = [key('RS256'), key('ES256')];

// What outlives a change of the keys: the library's own store goes with its provider.
const kept = new Map();
const live = (id) => {
  const entry = kept.get(id);
  if (entry && entry.ends < Date.now()) kept.delete(id);
  return kept.get(id)?.payload;
};
class Store {
  constructor(model) { this.model = model; }
  id(id) { return `${this.model}:${id}`; }
  async upsert(id, payload, seconds) { kept.set(this.id(id), { payload, ends: seconds ? Date.now() + seconds * 1000 : Infinity }); }
  async find(id) { return live(this.id(id)); }
  async by(field, value) { return [...kept.keys()].filter((id) => id.startsWith(`${this.model}:`)).map(live).find((payload) => payload?.[field] === value); }
  async findByUid(uid) { return this.by('uid', uid); }
  async findByUserCode(code) { return this.by('userCode', code); }
  async consume(id) { const payload = live(this.id(id)); if (payload) payload.consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { kept.delete(this.id(id)); }
  async revokeByGrantId(grant) { for (const [id, entry] of kept) if (entry.payload.grantId === grant) kept.delete(id); }
}

const client = (id, more) => ({ client_id: id, client_secret: 'of-drover', redirect_uris: [CALLBACK], grant_types: ['authorization_code', 'refresh_token'], ...more });
const make = () => {
  const provider = new Provider(ISSUER, {
    adapter: Store,
    claims: { openid: ['sub'], profile: ['name', 'preferred_username'], groups: ['groups'] },
    clients: [client('drover'), client('drover-es', { id_token_signed_response_alg: 'ES256' })],
    // The groups are at the userinfo endpoint for one client, and in the ID token for the other.
    conformIdTokenClaims: false,
    cookies: { keys: ['of-the-tests'] },
    features: { devInteractions: { enabled: false } },
    findAccount: async (_, sub) => {
      const user = bySub(sub);
      return user && { accountId: sub, claims: async () => ({ sub, name: user.name, preferred_username: loginOf(user), groups: user.groups }) };
    },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    jwks: { keys },
    pkce: { required: () => true },
    rotateRefreshToken: true,
    scopes: ['openid', 'offline_access', 'profile', 'groups'],
    ttl: { AccessToken: 300, AuthorizationCode: 30, Grant: 3600, IdToken: 300, Interaction: 300, RefreshToken: 3600, Session: 3600 },
  });
  provider.on('server_error', (_, error) => console.error(error));
  return { provider, callback: provider.callback() };
};
let current = make();

const read = async (request) => { let text = ''; for await (const part of request) text += part; return text; };
const page = (response, status, body) => {
  response.writeHead(status, { 'content-type': 'text/html' });
  response.end(`<!doctype html><meta charset=utf-8><title>Provider</title><form method=post>${body}</form>`);
};

async function interaction(request, response) {
  const { provider } = current;
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  const ask = (status, why = '') => page(response, status, `<p>${why}</p><input name=login autofocus><input name=password type=password><button>Sign in</button>`);
  if (request.method === 'GET') return prompt.name === 'login' ? ask(200) : page(response, 200, '<p>Allow Drover?</p><button name=answer value=allow>Allow</button><button name=answer value=deny>Deny</button>');
  const form = new URLSearchParams(await read(request));
  if (prompt.name === 'login') {
    const user = users[form.get('login')];
    if (!user || user.disabled || user.password !== form.get('password')) return ask(401, 'Wrong login or password');
    return provider.interactionFinished(request, response, { login: { accountId: user.sub } }, { mergeWithLastSubmission: false });
  }
  if (form.get('answer') !== 'allow') return provider.interactionFinished(request, response, { error: 'access_denied', error_description: 'the person said no' });
  const grant = grantId ? await provider.Grant.find(grantId) : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (prompt.details.missingOIDCScope) grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
  if (prompt.details.missingOIDCClaims) grant.addOIDCClaims(prompt.details.missingOIDCClaims);
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
}

https.createServer({ cert: fs.readFileSync(CERT), key: fs.readFileSync(KEY) }, async (request, response) => {
  try {
    await (request.url.startsWith('/interaction/') ? interaction(request, response) : current.callback(request, response));
  } catch (error) {
    console.error(error);
    if (!response.headersSent) response.writeHead(400);
    response.end(String(error.message));
  }
}).listen(+PORT, '127.0.0.1');

http.createServer(async (request, response) => {
  const name = /^\/user\/(\w+)$/.exec(request.url)?.[1];
  if (name) users[name] = Object.assign(users[name] ?? {}, JSON.parse(await read(request)));
  else if (request.url === '/rotate') { keys = [key('RS256'), key('ES256')]; current = make(); }
  else response.statusCode = 404;
  response.end();
}).listen(+CONTROL_PORT, '127.0.0.1');
