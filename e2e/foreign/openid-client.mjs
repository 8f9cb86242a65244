// A relying party made of openid-client, as its documentation has it. Only http is let in, since the issuer is on this machine.
import * as client from "openid-client";
import { config, run } from "./scenario.mjs";

const options = { execute: [client.allowInsecureRequests, client.enableNonRepudiationChecks] };

function authentication(secret) {
  switch (config.method) {
    case "client_secret_basic":
      return client.ClientSecretBasic(secret);
    case "client_secret_post":
      return client.ClientSecretPost(secret);
  }
  return client.None();
}

// One whose credentials are wrong has another secret, or, without secrets, another name.
async function make(secret) {
  const server = new URL(config.issuer);
  const right = secret === config.clientSecret;
  let rp;
  if (config.register && right) {
    rp = await client.dynamicClientRegistration(server, { client_name: "App Data", redirect_uris: [config.redirectUri] }, undefined, { ...options, algorithm: "oauth2" }); // it takes what it is given
    if (rp.clientMetadata().client_secret !== undefined) throw new Error("a registration has a secret");
  } else {
    rp = await client.discovery(server, config.method === "none" && !right ? "psqlrp_none" : config.clientId, undefined, authentication(secret), options);
  }
  const withClaims = (tokens) => ({ ...tokens, claims: tokens.claims() });
  return {
    issuer: rp.serverMetadata().issuer,
    async begin(params) {
      const verifier = client.randomPKCECodeVerifier(), state = client.randomState(), nonce = client.randomNonce();
      const url = client.buildAuthorizationUrl(rp, { redirect_uri: config.redirectUri, state, nonce, code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256", ...params });
      const maxAge = params.max_age === undefined ? undefined : Number(params.max_age);
      const [ofOpenID, more] = params.resource ? [{}, { resource: params.resource }] : [{ expectedNonce: nonce, idTokenExpected: true, maxAge }];
      return {
        url, state,
        finish: async (callback, pkceCodeVerifier = verifier) =>
          withClaims(await client.authorizationCodeGrant(rp, callback, { pkceCodeVerifier, expectedState: state, ...ofOpenID }, more)),
      };
    },
    refresh: async (token, params) => withClaims(await client.refreshTokenGrant(rp, token, params)),
    asItself: () => client.clientCredentialsGrant(rp),
    userInfo: (token, sub) => client.fetchUserInfo(rp, token, sub),
    revoke: (token) => client.tokenRevocation(rp, token),
    introspect: (token) => client.tokenIntrospection(rp, token),
    query: async (token, url, sql) => (await client.fetchProtectedResource(rp, token, new URL(url), "POST", JSON.stringify({ sql }), new Headers({ "content-type": "application/json" }))).json(),
  };
}

await run(make);
