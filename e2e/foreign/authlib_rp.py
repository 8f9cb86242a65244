"""A relying party made of Authlib, which speaks with e2e/foreignoauth_test.go as scenario.mjs does. Only AUTHLIB_INSECURE_TRANSPORT is set, since the issuer is on this machine."""
import json
import sys
import time
import warnings
from urllib.parse import parse_qs, urlsplit

import authlib.deprecate

warnings.simplefilter("ignore", authlib.deprecate.AuthlibDeprecationWarning)  # authlib.jose announces that joserfc comes after it
from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.jose import JsonWebKey, JsonWebToken
from authlib.oidc.core import CodeIDToken, UserInfo
from authlib.oidc.discovery import OpenIDProviderMetadata
import requests

CONFIG = json.loads(sys.argv[1])
SECRET, METHOD = CONFIG.get("clientSecret"), CONFIG["method"]
ALL = "openid email profile offline_access"


def visit(url, decision="allow"):
    print(decision, url, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise RuntimeError(f"nobody visits {url}")
    return line.rstrip("\n")


def code_of(call):
    """The OAuth error code of a failure."""
    try:
        got = call()
    except OAuthError as e:
        return e.error
    return f"no failure: {got!r}"


class RelyingParty:
    def __init__(self, right=True):
        self.meta = requests.get(CONFIG["issuer"] + "/.well-known/openid-configuration", timeout=10).json()
        self.keys = JsonWebKey.import_key_set(requests.get(self.meta["jwks_uri"], timeout=10).json())
        self.id, self.secret = CONFIG["clientId"], SECRET
        if not right:
            self.id, self.secret = (self.id, "psqlrs_wrong") if SECRET else ("psqlrp_none", None)

    def session(self, scope=None, token=None):
        return OAuth2Session(self.id, self.secret, scope=scope, token=token, redirect_uri=CONFIG["redirectUri"], token_endpoint_auth_method=METHOD,
                             revocation_endpoint_auth_method=METHOD, code_challenge_method="S256", token_endpoint=self.meta["token_endpoint"], default_timeout=10)

    def begin(self, scope, **params):
        return Flow(self, scope, params)

    def sign_in(self, scope, **params):
        flow = self.begin(scope, **params)
        return flow.finish(visit(flow.url))

    def verified(self, token, nonce=None):
        """The claims of the id_token, by the published keys alone."""
        claims = JsonWebToken(["RS256"]).decode(
            token["id_token"], self.keys, claims_cls=CodeIDToken,
            claims_options={"iss": {"values": [self.meta["issuer"]]}, "aud": {"values": [self.id]}},
            claims_params={"nonce": nonce, "client_id": self.id, "access_token": token["access_token"], "max_age": 1})
        claims.validate()
        assert claims["at_hash"]
        return claims

    def refresh(self, token, **params):
        new = self.session().refresh_token(self.meta["token_endpoint"], refresh_token=token["refresh_token"], **params)
        new["claims"] = self.verified(new)
        return dict(new)

    def user_info(self, token):
        answer = self.session(token=token).get(self.meta["userinfo_endpoint"])
        if answer.status_code != 200:
            raise OAuthError(answer.json()["error"])
        return UserInfo(answer.json())

    def revoke(self, token):
        self.session().revoke_token(self.meta["revocation_endpoint"], token, "refresh_token").raise_for_status()

    def active(self, token):
        answer = self.session().introspect_token(self.meta["introspection_endpoint"], token).json()
        return answer.get("active", answer.get("error"))

    def query(self, token, sql):
        answer = self.session(token=token).post(f"{token['api_url']}/v1/db/{token['database']}/query", json={"sql": sql})
        answer.raise_for_status()
        return answer.json()["data"]


class Flow:
    def __init__(self, rp, scope, params):
        self.rp, self.nonce, self.verifier = rp, generate_token(), generate_token(48)
        self.session = rp.session(scope)
        self.url, self.state = self.session.create_authorization_url(rp.meta["authorization_endpoint"], nonce=self.nonce, code_verifier=self.verifier, **params)

    def finish(self, callback, verifier=None):
        answer = parse_qs(urlsplit(callback).query)
        assert answer["iss"] == [self.rp.meta["issuer"]], answer  # Authlib leaves RFC 9207 to the app, and so a failure
        if "error" in answer:
            raise OAuthError(answer["error"][0])
        token = self.session.fetch_token(self.rp.meta["token_endpoint"], authorization_response=callback, state=self.state, code_verifier=verifier or self.verifier)
        return {**token, "claims": self.rp.verified(token, self.nonce)}


def scenario():
    rp = RelyingParty()
    OpenIDProviderMetadata(rp.meta).validate()
    verdict = {"issuer": rp.meta["issuer"]}

    first = rp.sign_in(ALL, max_age=3600)
    info = rp.user_info(first)
    assert info["sub"] == first["claims"]["sub"]
    verdict |= {"sub": info["sub"], "email": info["email"], "name": info["name"], "scope": first["scope"], "expiresIn": first["expires_in"]}
    verdict["claims"] = [first["claims"]["email"], first["claims"]["name"]]

    second = rp.refresh(first)
    third = rp.refresh(second)
    verdict["wider"] = [code_of(lambda: rp.refresh(third, scope="openid database")), code_of(lambda: rp.refresh(third, resource=rp.meta["issuer"] + "/mcp")),
                        code_of(lambda: rp.session().fetch_token(grant_type="client_credentials"))]
    verdict["refreshed"] = len({t[k] for t in (first, second, third) for k in ("access_token", "refresh_token")}) == 6 and all(
        third["claims"][c] == first["claims"][c] for c in ("sub", "auth_time"))
    verdict["active"] = [rp.active(third["access_token"]), rp.active(third["refresh_token"])]
    rp.revoke(third["refresh_token"])
    verdict["revoked"] = [rp.active(third["access_token"]), code_of(lambda: rp.user_info(third)), code_of(lambda: rp.refresh(third))]

    again = rp.sign_in(ALL)
    newer = rp.refresh(again)
    verdict["reused"] = [code_of(lambda: rp.refresh(again)), code_of(lambda: rp.user_info(newer))]

    before = int(time.time())
    verdict["fresh"] = rp.sign_in("openid", max_age=0)["claims"]["auth_time"] >= before

    flow = rp.begin("openid")
    callback = visit(flow.url)
    theirs = RelyingParty(right=False).begin("openid")
    verdict["stranger"] = code_of(lambda: theirs.finish(callback.replace(flow.state, theirs.state)))
    verdict["verifier"] = code_of(lambda: flow.finish(callback, "x" * 43))

    once = rp.begin("openid")
    callback = visit(once.url)
    had = once.finish(callback)
    verdict["used"] = [code_of(lambda: once.finish(callback)), code_of(lambda: rp.user_info(had))]

    denied = rp.begin("openid", prompt="consent")
    verdict["denied"] = code_of(lambda: denied.finish(visit(denied.url, "deny")))
    silent = rp.begin("openid", prompt="none")
    answer = visit(silent.url)
    verdict["silent"] = silent.finish(answer)["claims"]["sub"] == info["sub"] if "code=" in answer else code_of(lambda: silent.finish(answer))

    own = rp.sign_in("openid database")
    rp.query(own, "CREATE TABLE IF NOT EXISTS notes(a)")
    rp.query(own, "INSERT INTO notes VALUES ('by an app')")
    after = rp.sign_in("openid database")
    verdict["rows"] = rp.query(after, "SELECT a FROM notes")["rows"]
    verdict |= {"database": after["database"] == own["database"], "userEmail": own["user_email"], "expires": own.get("expires_in", "never")}
    return verdict


print("verdict", json.dumps(scenario()))
