// A relying party made of oauth4webapi, as its documentation has it. Only http is let in, since the issuer is on this machine.
import * as oauth from "oauth4webapi";
import { config, run } from "./scenario.mjs";

const options = { [oauth.allowInsecureRequests]: true };

function authentication(secret) {
  switch (config.method) {
    case "client_secret_basic":
      return oauth.ClientSecretBasic(secret);
    case "client_secret_post":
      return oauth.ClientSecretPost(secret);
  }
  return oauth.None();
}

// One whose credentials are wrong has another secret, or, without secrets, another name.
async function make(secret) {
  const issuer = new URL(config.issuer);
  const right = secret === config.clientSecret;
  const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { ...options, algorithm: config.register ? "oauth2" : "oidc" }));
  let rp = { client_id: right ? config.clientId : config.method === "none" ? "psqlrp_none" : config.clientId };
  if (config.register && right) {
    rp = await oauth.processDynamicClientRegistrationResponse(
      await oauth.dynamicClientRegistrationRequest(as, { client_name: "App Data", redirect_uris: [config.redirectUri], token_endpoint_auth_method: "none" }, options));
    // As an MCP runtime finds the server: by what it wants to call.
    for (const path of ["", "/v1", "/mcp"]) {
      const resource = new URL(config.issuer + path);
      const met = await oauth.processResourceDiscoveryResponse(resource, await oauth.resourceDiscoveryRequest(resource, options));
      if (met.authorization_servers[0] !== config.issuer) throw new Error(`${path}: ${met.authorization_servers}`);
    }
  }
  const auth = authentication(secret);
  const verified = async (response, tokens) => {
    if (tokens.id_token) await oauth.validateApplicationLevelSignature(as, response, options);
    return { ...tokens, claims: oauth.getValidatedIdTokenClaims(tokens) };
  };
  return {
    issuer: as.issuer,
    async begin(params) {
      const verifier = oauth.generateRandomCodeVerifier(), state = oauth.generateRandomState(), nonce = oauth.generateRandomNonce();
      const url = new URL(as.authorization_endpoint);
      url.search = new URLSearchParams({ client_id: rp.client_id, redirect_uri: config.redirectUri, response_type: "code", state, nonce,
        code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256", ...params });
      const maxAge = params.max_age === undefined ? undefined : Number(params.max_age);
      const [ofOpenID, more] = params.resource ? [{}, { resource: params.resource }] : [{ expectedNonce: nonce, maxAge, requireIdToken: true }];
      return {
        url, state,
        async finish(callback, codeVerifier = verifier) {
          const answer = oauth.validateAuthResponse(as, rp, callback, state);
          const response = await oauth.authorizationCodeGrantRequest(as, rp, auth, answer, config.redirectUri, codeVerifier, { ...options, additionalParameters: more });
          return verified(response, await oauth.processAuthorizationCodeResponse(as, rp, response, ofOpenID));
        },
      };
    },
    async refresh(token, params) {
      const response = await oauth.refreshTokenGrantRequest(as, rp, auth, token, { ...options, additionalParameters: params });
      return verified(response, await oauth.processRefreshTokenResponse(as, rp, response));
    },
    asItself: async () => oauth.processClientCredentialsResponse(as, rp, await oauth.clientCredentialsGrantRequest(as, rp, auth, {}, options)),
    userInfo: async (token, sub) => oauth.processUserInfoResponse(as, rp, sub, await oauth.userInfoRequest(as, rp, token, options)),
    revoke: async (token) => oauth.processRevocationResponse(await oauth.revocationRequest(as, rp, auth, token, options)),
    introspect: async (token) => oauth.processIntrospectionResponse(as, rp, await oauth.introspectionRequest(as, rp, auth, token, options)),
    query: async (token, url, sql) =>
      (await oauth.protectedResourceRequest(token, "POST", new URL(url), new Headers({ "content-type": "application/json" }), JSON.stringify({ sql }), options)).json(),
  };
}

await run(make);
