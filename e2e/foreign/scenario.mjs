// What a relying party does with the server, whichever library of Node it is made of. e2e/foreignoauth_test.go plays the person: it
// reads lines "allow <url>" and "deny <url>", and answers with the address that the app is called back at. The last line is the verdict.
import { createInterface } from "node:readline";
import { inspect } from "node:util";

// issuer, clientId, clientSecret, method (client_secret_basic, client_secret_post or none), redirectUri, register
export const config = JSON.parse(process.argv[2]);
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function visit(url, decision = "allow") {
  process.stdout.write(`${decision} ${url.href}\n`);
  const { value, done } = await answers.next();
  if (done) throw new Error(`nobody visits ${url.href}`);
  return new URL(value);
}

// The OAuth error code of a failure, wherever the library has it.
async function codeOf(promise) {
  let got;
  try {
    got = await promise;
  } catch (err) {
    const challenge = Array.isArray(err.cause) ? err.cause[0]?.parameters?.error : undefined;
    const code = err.error ?? challenge ?? (err.response?.bodyUsed === false ? (await err.response.json()).error : undefined);
    if (code === undefined) throw err;
    return code;
  }
  return `no failure: ${inspect(got)}`;
}

// rp has begin(params), which is {url, state, finish(callback, verifier)}, and refresh, asItself (the grant client_credentials), userInfo, revoke, introspect and query. stranger is the same client
// with credentials that are wrong.
async function scenario(rp, stranger) {
  const signIn = async (params) => {
    const flow = await rp.begin(params);
    return flow.finish(await visit(flow.url));
  };
  const all = "openid email profile offline_access";
  const verdict = { issuer: rp.issuer };

  const first = await signIn({ scope: all, max_age: "3600" });
  const info = await rp.userInfo(first.access_token, first.claims.sub);
  Object.assign(verdict, { sub: info.sub, email: info.email, name: info.name, scope: first.scope, expiresIn: first.expires_in });
  verdict.claims = [first.claims.email, first.claims.name];

  const second = await rp.refresh(first.refresh_token);
  const third = await rp.refresh(second.refresh_token);
  verdict.wider = [await codeOf(rp.refresh(third.refresh_token, { scope: "openid database" })), await codeOf(rp.refresh(third.refresh_token, { resource: `${rp.issuer}/mcp` })), await codeOf(rp.asItself())];
  verdict.refreshed = new Set([first, second, third].flatMap((t) => [t.access_token, t.refresh_token])).size === 6 && third.claims.sub === info.sub && third.claims.auth_time === first.claims.auth_time;
  const active = async (token) => (config.clientSecret ? (await rp.introspect(token)).active : codeOf(rp.introspect(token)));
  verdict.active = [await active(third.access_token), await active(third.refresh_token)];
  await rp.revoke(third.refresh_token);
  verdict.revoked = [await active(third.access_token), await codeOf(rp.userInfo(third.access_token, info.sub)), await codeOf(rp.refresh(third.refresh_token))];

  const again = await signIn({ scope: all });
  const newer = await rp.refresh(again.refresh_token);
  verdict.reused = [await codeOf(rp.refresh(again.refresh_token)), await codeOf(rp.userInfo(newer.access_token, info.sub))];

  const before = Math.floor(Date.now() / 1000);
  const fresh = await signIn({ scope: "openid", max_age: "0" });
  verdict.fresh = fresh.claims.auth_time >= before;

  const flow = await rp.begin({ scope: "openid" });
  const callback = await visit(flow.url);
  // The metadata says that the answer always has iss: one without, or with another's, is not the server's.
  for (const [name, iss] of [["withoutIss", undefined], ["otherIss", "https://evil.example"]]) {
    const changed = new URL(callback);
    changed.searchParams.delete("iss");
    if (iss) changed.searchParams.set("iss", iss);
    verdict[name] = await flow.finish(changed).then(() => "taken", (err) => (/"iss"/.test(inspect(err, { depth: 4 })) ? "refused" : inspect(err)));
  }
  const theirs = await stranger.begin({ scope: "openid" });
  callback.searchParams.set("state", theirs.state);
  verdict.stranger = await codeOf(theirs.finish(callback));
  callback.searchParams.set("state", flow.state);
  verdict.verifier = await codeOf(flow.finish(callback, "x".repeat(43)));

  const once = await rp.begin({ scope: "openid" });
  const used = await visit(once.url);
  const had = await once.finish(used);
  verdict.used = [await codeOf(once.finish(used)), await codeOf(rp.userInfo(had.access_token, info.sub))];

  const denied = await rp.begin({ scope: "openid", prompt: "consent" });
  verdict.denied = await codeOf(denied.finish(await visit(denied.url, "deny")));
  // Nothing is shown: who was asked before by an app that can prove who it is, is signed in.
  const silent = await rp.begin({ scope: "openid", prompt: "none" });
  const answered = await visit(silent.url);
  verdict.silent = answered.searchParams.has("code") ? (await silent.finish(answered)).claims.sub === info.sub : await codeOf(silent.finish(answered));

  const own = await signIn({ scope: "openid database" });
  const at = `${own.api_url}/v1/db/${own.database}/query`;
  await rp.query(own.access_token, at, "CREATE TABLE IF NOT EXISTS notes(a)");
  await rp.query(own.access_token, at, "INSERT INTO notes VALUES ('by an app')");
  const next = await signIn({ scope: "openid database" });
  verdict.rows = (await rp.query(next.access_token, at, "SELECT a FROM notes")).data.rows;
  if (config.register) {
    // As an MCP runtime: without a scope, for one resource. Its token opens nothing else.
    const mcp = await rp.begin({ resource: `${rp.issuer}/mcp` });
    const opens = await mcp.finish(await visit(mcp.url));
    verdict.mcp = [opens.claims === undefined, opens.scope ?? "", opens.expires_in, await codeOf(rp.userInfo(opens.access_token, info.sub)), await codeOf(rp.query(opens.access_token, at, "SELECT 1"))];
  }
  Object.assign(verdict, { database: next.database === own.database, userEmail: own.user_email, expires: own.expires_in ?? "never" });
  return verdict;
}

export async function run(make) {
  try {
    process.stdout.write(`verdict ${JSON.stringify(await scenario(await make(config.clientSecret), await make("psqlrs_wrong")))}\n`);
  } catch (err) {
    process.stderr.write(`${inspect(err, { depth: 6 })}\n`);
    process.exitCode = 1;
  }
  process.stdin.destroy();
}
