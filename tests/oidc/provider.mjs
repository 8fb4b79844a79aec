// The OpenID provider of the tests: npm's certified oidc-provider on a free port of loopback. A test
// writes one JSON command a line to the standard input, and reads one JSON answer a line. Each
// command replaces the configuration that the commands before it made; only accounts and sessions
// that the provider itself remembers stay.
import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import { createInterface } from 'node:readline';
import Provider from 'oidc-provider';

// The provider warns that its forms are for development, on the standard output.
console.warn = console.info = console.log = (...words) => console.error(...words);
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

const settings = { alg: 'RS256', auth: 'client_secret_basic', in_id_token: false, accounts: {}, redirect_uri: '', path: '' };
let keys = newKeys();
let handle = (_request, response) => response.writeHead(503).end();
const server = createServer((request, response) => handle(request, response));

function newKeys() {
  const key = (kind, options) => generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' });
  return [key('rsa', { modulusLength: 2048 }), key('ec', { namedCurve: 'P-256' }), key('ed25519')];
}

function configure(issuer) {
  const { alg, auth, in_id_token, accounts, redirect_uri } = settings;
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: 'riposte',
      ...(auth === 'none' && alg !== 'HS256' ? {} : { client_secret: 'a secret: with+signs&of=forms' }),
      redirect_uris: [redirect_uri],
      post_logout_redirect_uris: [],
      grant_types: ['authorization_code'],
      response_types: ['code'],
      token_endpoint_auth_method: auth,
      id_token_signed_response_alg: alg,
    }],
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA', 'HS256'] },
    // As it is by default, a scope's claims are in the user info, and the ID token has none of them.
    conformIdTokenClaims: !in_id_token,
    clientAuthMethods: [auth],
    claims: { openid: ['sub'], profile: ['preferred_username', 'groups'] },
    pkce: { required: () => true },
    cookies: { keys: ['tests'] },
    findAccount: (_context, id) => ({
      accountId: id,
      claims: () => ({ sub: id, preferred_username: id, ...settings.accounts[id] }),
    }),
  });
  for (const event of ['server_error', 'authorization.error', 'grant.error', 'userinfo.error']) {
    provider.on(event, (_context, error) => console.error(event, error.message, error.error_detail ?? ''));
  }
  handle = provider.callback();
}

server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  createInterface({ input: process.stdin }).on('line', (line) => {
    const { rotate, ...changes } = JSON.parse(line);
    Object.assign(settings, changes);
    if (rotate) keys = newKeys();
    configure(issuer);
    say({ done: true });
  }).on('close', () => process.exit(0));
  say({ issuer });
});
