package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/approval"
	"github.com/persqld/persqld/internal/billing"
	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/checkout"
	"github.com/persqld/persqld/internal/feed"
	"github.com/persqld/persqld/internal/gate"
	"github.com/persqld/persqld/internal/history"
	"github.com/persqld/persqld/internal/password"
	"github.com/persqld/persqld/internal/schedule"
	"github.com/persqld/persqld/internal/sqlite"
	"github.com/persqld/persqld/internal/store"
	"github.com/persqld/persqld/internal/transfer"
	"github.com/persqld/persqld/internal/wire"
)

// fault is a failure as the client gets it.
type fault struct {
	status  int
	code    string // a stable word
	message string // a sentence
	hint    string
	detail  *sqlDetail
	retry   time.Duration // of a 429 or 503: when to try again
	index   int           // of the statement in a batch; -1 for none
	atomic  bool          // the batch was one transaction: nothing of it was kept
	empty   *billing.EmptyError

	conflicts []byte // of a merge, as JSON
	extra     []byte // further members, each with a comma before it
}

func (f *fault) Error() string { return f.message }

func newFault(status int, code, message, hint string) *fault {
	return &fault{status: status, code: code, message: message, hint: hint, index: -1}
}

// statusClientGone is what the metrics say of a request whose client left; nobody reads it (nginx's 499).
const statusClientGone = 499

// The words of a fault's code that more than one place uses.
const (
	codeUnauthorized = "unauthorized"
	codeForbidden    = "forbidden"
	codeNotFound     = "not_found"
	codeBadRequest   = "bad_request"
	codeSyntax       = "syntax_error"
	codeTooManyReqs  = "too_many_requests"
	codeSlugTaken    = "slug_taken"
	codeShuttingDown = "shutting_down"
)

// table says what each error of the rooms below means to a client.
var table = []struct {
	err     error
	status  int
	code    string
	message string
	hint    string
	retry   time.Duration
}{
	{err: catalog.ErrTokenFormat, status: http.StatusUnauthorized, code: codeUnauthorized, message: "Invalid token format", hint: "send the header Authorization: Bearer psql_live_…"},
	{err: catalog.ErrTokenUnknown, status: http.StatusUnauthorized, code: codeUnauthorized, message: "Invalid or expired token"},
	{err: catalog.ErrDatabaseEnded, status: http.StatusNotFound, code: codeNotFound, message: "Database not found", hint: "one of that slug was deleted: GET /v1/databases?deleted=true shows what can be brought back, POST /v1/databases makes a new one"},
	{err: catalog.ErrDatabaseNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Database not found", hint: "POST /v1/databases makes one"},
	{err: catalog.ErrBranchNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Branch not found", hint: "GET …/branches lists them"},
	{err: catalog.ErrRef, status: http.StatusBadRequest, code: "invalid_ref", message: "A ref has 1 to 64 characters from A-Z, a-z, 0-9, '.', '_', '-' and '/', and begins with a letter or digit"},
	{err: catalog.ErrHasBranches, status: http.StatusConflict, code: "has_branches", message: "The database has branches", hint: "delete them first, or send ?force=true, which deletes them with it"},
	{err: catalog.ErrHandoff, status: http.StatusNotFound, code: codeNotFound, message: "The handoff is unknown, used or expired", hint: "POST …/branches/:ref/pin makes another one"},
	{err: store.ErrNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Database not found"},
	{err: catalog.ErrNamespaceNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Namespace not found"},
	{err: catalog.ErrNamespaceExists, status: http.StatusConflict, code: codeSlugTaken, message: "Another namespace has this slug", hint: "choose another slug"},
	{err: catalog.ErrNamespaceNotEmpty, status: http.StatusConflict, code: "namespace_not_empty", message: "The namespace has databases", hint: "delete them first, or send ?force=true, which moves them to the trash"},
	{err: catalog.ErrRulesChanged, status: http.StatusConflict, code: "database_held", message: "Approval rules are being changed; nothing was deleted", hint: "send it again"},
	{err: catalog.ErrTooManyNamespaces, status: http.StatusConflict, code: "too_many_namespaces", message: "You have made as many namespaces as one may", hint: "delete one, or ask the operator to raise PERSQLD_MAX_NAMESPACES"},
	{err: catalog.ErrTooManyInvitations, status: http.StatusConflict, code: "too_many_invitations", message: "The namespace has as many open invitations as it may", hint: "revoke one, or ask the operator to raise PERSQLD_MAX_INVITATIONS"},
	{err: catalog.ErrEmail, status: http.StatusBadRequest, code: codeBadRequest, message: "An e-mail address has at most 254 bytes and the form name@example.com"},
	{err: catalog.ErrUserExists, status: http.StatusConflict, code: "account_exists", message: "There is an account with this e-mail address", hint: "sign in with it first"},
	{err: catalog.ErrUserIdentityNotFound, status: http.StatusNotFound, code: codeNotFound, message: "The account has no such linked sign-in", hint: "GET /api/identities lists them"},
	{err: catalog.ErrLastWay, status: http.StatusConflict, code: "last_sign_in", message: "It is the last way to sign in to the account", hint: "set a password or link another sign-in first"},
	{err: catalog.ErrResetNotFound, status: http.StatusNotFound, code: codeNotFound, message: "The link is unknown, used or expired", hint: "ask the operator for another one"},
	{err: catalog.ErrSessionUnknown, status: http.StatusUnauthorized, code: codeUnauthorized, message: "Not signed in, or no longer", hint: "sign in again"},
	{err: catalog.ErrMemberRole, status: http.StatusBadRequest, code: "invalid_role", message: "A member's role is viewer, editor, admin or owner"},
	{err: catalog.ErrMemberNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Member not found", hint: "GET …/members lists them"},
	{err: catalog.ErrLadder, status: http.StatusForbidden, code: "role_not_allowed", message: "Your role in the namespace may not do this", hint: "admins manage viewers, editors and admins; owners all"},
	{err: catalog.ErrLastOwner, status: http.StatusConflict, code: "last_owner", message: "The last owner of a namespace can't leave or become something else", hint: "make another member an owner first, or delete the namespace"},
	{err: catalog.ErrOAuthGrantNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Connected app not found", hint: "GET /api/connected-apps lists yours"},
	{err: catalog.ErrInvitationNotFound, status: http.StatusNotFound, code: codeNotFound, message: "The invitation is unknown, used, revoked or expired", hint: "ask for another one"},
	{err: catalog.ErrInvitationEmail, status: http.StatusForbidden, code: codeForbidden, message: "The invitation is for another e-mail address"},
	{err: catalog.ErrAlreadyMember, status: http.StatusConflict, code: "already_member", message: "You are a member of the namespace already", hint: "an owner or admin can change your role; the invitation is still open"},
	{err: password.ErrLength, status: http.StatusBadRequest, code: "invalid_password", message: fmt.Sprintf("A password has %d to %d bytes", password.MinLength, password.MaxLength)},
	{err: password.ErrText, status: http.StatusBadRequest, code: "invalid_password", message: "A password has no control characters"},
	{err: password.ErrBusy, status: http.StatusTooManyRequests, code: "passwords_busy", message: "Too many passwords are being checked", hint: "try again after the time in Retry-After, or raise PERSQLD_PASSWORD_CHECKS", retry: time.Second},
	{err: checkout.ErrUnreachable, status: http.StatusServiceUnavailable, code: "stripe_unreachable", message: "Stripe doesn't answer; nothing was paid", hint: "try again after the time in Retry-After", retry: 10 * time.Second},
	{err: checkout.ErrRefused, status: http.StatusServiceUnavailable, code: "stripe_refused", message: "Stripe refused to begin the payment; nothing was paid", hint: "tell the operator: the server's log has Stripe's reason", retry: time.Minute},
	{err: checkout.ErrSignature, status: http.StatusBadRequest, code: "invalid_signature", message: "The event is not signed by Stripe for this webhook", hint: "PERSQLD_STRIPE_WEBHOOK_SECRET is the signing secret of this very endpoint; a proxy must not change the body"},
	{err: checkout.ErrStale, status: http.StatusBadRequest, code: "stale_signature", message: "The event was signed more than 5 minutes ago", hint: "set the server's clock"},
	{err: checkout.ErrEvent, status: http.StatusBadRequest, code: "invalid_event", message: "The body is no event of a Checkout session", hint: "the webhook takes snapshot events, not thin ones"},
	{err: checkout.ErrMode, status: http.StatusBadRequest, code: "wrong_mode", message: "The payment is of Stripe's test mode and the server's key is live, or the other way round", hint: "PERSQLD_STRIPE_KEY and the webhook must be of the same mode"},
	{err: checkout.ErrCurrency, status: http.StatusBadRequest, code: "wrong_currency", message: "The payment is not in US dollars"},
	{err: checkout.ErrAmount, status: http.StatusBadRequest, code: "wrong_amount", message: "The payment's amount can't be credited"},
	{err: catalog.ErrSlug, status: http.StatusBadRequest, code: "invalid_slug", message: "A slug has 1 to 63 characters from a-z, 0-9 and -, and does not begin with -"},
	{err: catalog.ErrSlugTaken, status: http.StatusConflict, code: codeSlugTaken, message: "Another database has this slug", hint: "give another one: {\"slug\": \"…\"}"},
	{err: catalog.ErrDatabaseLives, status: http.StatusConflict, code: "not_deleted", message: "The database is not deleted", hint: "it lives under another slug; GET /v1/databases shows which"},
	{err: catalog.ErrRole, status: http.StatusBadRequest, code: "invalid_role", message: "A role is admin, readwrite (or write) or readonly (or read)"},
	{err: catalog.ErrTableScope, status: http.StatusBadRequest, code: "invalid_table_scope", message: "A tableScope has 1 to 200 names of tables, each of 1 to 255 bytes", hint: "leave it out for a token of all tables"},
	{err: catalog.ErrClaims, status: http.StatusBadRequest, code: "invalid_claims", message: "claims are a JSON object of at most 4096 bytes", hint: "policies read them as :auth_<key>"},
	{err: catalog.ErrPolicyNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Policy not found", hint: "GET …/policies lists them"},
	{err: catalog.ErrPolicyExists, status: http.StatusConflict, code: "policy_exists", message: "The database has a policy of this name already", hint: "give it another name, or delete the other one first"},
	{err: catalog.ErrTooManyPolicies, status: http.StatusConflict, code: "too_many_policies", message: fmt.Sprintf("A database has at most %d policies", catalog.MaxPolicies), hint: "join expressions of a table with AND"},
	{err: store.ErrManySnapshots, status: http.StatusConflict, code: "too_many_snapshots", message: fmt.Sprintf("A database has at most %d snapshots made by hand", store.MaxSnapshots),
		hint: "delete some: any moment of the history can be restored without one"},
	{err: store.ErrNoSnapshot, status: http.StatusNotFound, code: codeNotFound, message: "Snapshot not found", hint: "GET …/snapshots lists them"},
	{err: history.ErrBookmark, status: http.StatusBadRequest, code: "invalid_bookmark", message: "This is no bookmark of the database", hint: "bookmarks come with answers to writes, and from GET …/bookmark"},
	{err: catalog.ErrRuleNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Approval rule not found", hint: "GET …/approval-rules lists them"},
	{err: catalog.ErrTooManyRules, status: http.StatusConflict, code: "too_many_rules", message: fmt.Sprintf("A database has at most %d approval rules", approval.MaxRules), hint: "one tableGlob can be about many tables"},
	{err: catalog.ErrWebhookNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Webhook not found", hint: "GET …/webhooks lists them"},
	{err: catalog.ErrDeliveryNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Delivery not found", hint: "GET …/webhooks/:id/deliveries lists those that are kept"},
	{err: catalog.ErrTooManyWebhooks, status: http.StatusConflict, code: "too_many_webhooks", message: "The database has as many webhooks as it may have", hint: "one receiver can be told of many tables; the operator can raise PERSQLD_MAX_WEBHOOKS"},
	{err: catalog.ErrBindingNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Binding not found", hint: "GET /v1/actions/bindings lists them"},
	{err: catalog.ErrIdentityName, status: http.StatusBadRequest, code: codeBadRequest, message: "A repository is named owner/repo: 1 to 256 characters of ASCII without white space"},
	{err: catalog.ErrIdentityBound, status: http.StatusConflict, code: "identity_bound", message: "The repository is bound already, to another namespace or with another id", hint: "unbind it there first, or ask the operator"},
	{err: catalog.ErrTooManyBindings, status: http.StatusConflict, code: "too_many_bindings", message: "A namespace has at most 1000 bindings", hint: "DELETE /v1/actions/bindings/:id ends those that nobody needs"},
	{err: catalog.ErrTooManyIdentities, status: http.StatusForbidden, code: codeNotLetIn, message: "As many OIDC identities of this issuer, or of this owner, have a namespace as may", hint: "the operator can raise PERSQLD_MAX_IDENTITIES, or bind the identity to a namespace"},
	{err: catalog.ErrOAuthClientNotFound, status: http.StatusNotFound, code: codeNotFound, message: "OAuth app not found", hint: "GET /v1/oauth-apps lists them"},
	{err: catalog.ErrOAuthClientPublic, status: http.StatusConflict, code: "public_client", message: "A public client has no secret", hint: "PKCE stands in its place"},
	{err: catalog.ErrTooManyOAuthClients, status: http.StatusConflict, code: "too_many_oauth_apps", message: "The namespace has as many OAuth apps as it may", hint: "delete one, or ask the operator to raise PERSQLD_MAX_OAUTH_APPS"},
	{err: catalog.ErrTooManyOAuthSecrets, status: http.StatusConflict, code: "too_many_secrets", message: "Five secrets of the app work already", hint: "wait until one has ended, or send {\"overlapSec\": 0}, which ends the former ones at once"},
	{err: schedule.ErrNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Schedule not found", hint: "GET …/schedules lists them"},
	{err: catalog.ErrScheduleExists, status: http.StatusConflict, code: "schedule_exists", message: "The database has a schedule of this name already", hint: "give it another name, or change that one: PATCH …/schedules/:id"},
	{err: schedule.ErrRunning, status: http.StatusConflict, code: "schedule_running", message: "The schedule is running already", hint: "it never runs twice at once; GET …/schedules shows since when"},
	{err: schedule.ErrStopping, status: http.StatusServiceUnavailable, code: codeShuttingDown, message: "The server is shutting down", retry: 5 * time.Second},
	{err: catalog.ErrApprovalNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Approval not found", hint: "GET …/approvals lists those of the database"},
	{err: catalog.ErrTooManyApprovals, status: http.StatusTooManyRequests, code: "too_many_approvals", message: "There are as many pending approvals of the token, or of the database, as there may be; the write needs human approval and was not run", hint: "wait for those that it has to be decided, or ask the operator to raise PERSQLD_MAX_APPROVALS", retry: time.Minute},
	{err: catalog.ErrProposal, status: http.StatusNotFound, code: codeNotFound, message: "The execution token is unknown, used, expired or another bearer's", hint: "POST …/propose makes another one"},
	{err: catalog.ErrTooManyProposals, status: http.StatusTooManyRequests, code: "too_many_proposals", message: "The token has as many open proposals as it may", hint: "apply some, or wait until they are over", retry: time.Minute},
	{err: store.ErrSpent, status: http.StatusNotFound, code: codeNotFound, message: "It was used already", hint: ""},
	{err: catalog.ErrApprovalUsed, status: http.StatusNotFound, code: codeNotFound, message: "The approval is expired, or was redeemed", hint: "send the call again: it is held anew"},
	{err: approval.ErrDecided, status: http.StatusConflict, code: "already_decided", message: "The approval is decided already", hint: ""},
	{err: approval.ErrVoted, status: http.StatusConflict, code: "already_voted", message: "You have approved it already", hint: "another person has to approve it too"},
	{err: approval.ErrOver, status: http.StatusConflict, code: "approval_over", message: "The approval is over", hint: "the write can be asked for again"},
	{err: approval.ErrRank, status: http.StatusForbidden, code: "role_not_allowed", message: "Your role in the namespace may not decide on it", hint: "editors, admins and owners may, unless a rule asks for more"},
	{err: approval.ErrOwn, status: http.StatusForbidden, code: "own_request", message: "A rule keeps whoever owns the requesting token from deciding on it", hint: "ask somebody else"},
	{err: catalog.ErrExpiry, status: http.StatusBadRequest, code: codeBadRequest, message: "A token must expire in the future"},
	{err: catalog.ErrTokenNotFound, status: http.StatusNotFound, code: codeNotFound, message: "Token not found", hint: "GET /v1/tokens lists them"},
	{err: catalog.ErrName, status: http.StatusBadRequest, code: codeBadRequest, message: "A name has at most 200 characters, none of them control characters"},
	{err: store.ErrAbandoned, status: http.StatusRequestTimeout, code: "statement_timeout", message: "The statement ran over its time limit and is being undone", hint: "until it is, the database answers 429"},
	{err: store.ErrTimeout, status: http.StatusRequestTimeout, code: "statement_timeout", message: "The statement ran over its time limit and was stopped; it changed nothing", hint: "an index, a LIMIT or smaller steps make it shorter"},
	{err: feed.ErrMany, status: http.StatusTooManyRequests, code: "too_many_listeners", message: "As many listen to the server's changes as may", hint: "try again later, or raise PERSQLD_FEED_LISTENERS", retry: 5 * time.Second},
	{err: feed.ErrManyHere, status: http.StatusTooManyRequests, code: "too_many_listeners", message: "As many listen to the database's changes as may", hint: "try again later, or raise PERSQLD_FEED_LISTENERS_DATABASE", retry: 5 * time.Second},
	{err: store.ErrQueueFull, status: http.StatusTooManyRequests, code: "queue_full", message: "Too many requests wait for this database", hint: "try again after the time in Retry-After", retry: time.Second},
	{err: store.ErrStuck, status: http.StatusTooManyRequests, code: "database_busy", message: "The database is still undoing a statement that ran over its time limit", retry: time.Second},
	{err: store.ErrKeptFull, status: http.StatusTooManyRequests, code: "idempotency_store_full", message: "Too many answers to idempotency keys are kept for this database; the write was undone", hint: "keys are kept for 24 hours; send the write without one, or raise PERSQLD_IDEMPOTENCY_MAX", retry: time.Minute},
	{err: store.ErrKeyReused, status: http.StatusConflict, code: "idempotency_key_reused", message: "The idempotency key was used with another request body", hint: "use a new key for a new request"},
	{err: store.ErrClosing, status: http.StatusServiceUnavailable, code: codeShuttingDown, message: "The server is shutting down", retry: 5 * time.Second},
	{err: catalog.ErrClosed, status: http.StatusServiceUnavailable, code: codeShuttingDown, message: "The server is shutting down", retry: 5 * time.Second},
	{err: store.ErrQuota, status: http.StatusBadRequest, code: "database_full", message: "The database has reached its size limit; the write was undone", hint: "delete rows or VACUUM, or raise PERSQLD_MAX_DATABASE"},
	{err: store.ErrDiskFull, status: http.StatusServiceUnavailable, code: "disk_full", message: "The server's disk is full; the write was undone. Reads go on", retry: 30 * time.Second},
	{err: catalog.ErrDiskFull, status: http.StatusServiceUnavailable, code: "disk_full", message: "The server's disk is full; nothing was changed. Reads go on", retry: 30 * time.Second},
	{err: store.ErrNoRowid, status: http.StatusBadRequest, code: "sql_error", message: "database or disk is full", hint: "the AUTOINCREMENT column of the table has reached the greatest rowid, 9223372036854775807"},
	{err: store.ErrParked, status: http.StatusServiceUnavailable, code: "server_busy", message: "The server is busy with other long statements; this one was stopped, and changed nothing", hint: "an index, a LIMIT or smaller steps make it short, and short statements always get through", retry: 10 * time.Second},
	{err: store.ErrHog, status: http.StatusRequestEntityTooLarge, code: "statement_too_large", message: "The statement held more of the server's memory than any other when it was used up; it was stopped, and changed nothing", hint: "sort, group and join less at a time: page with LIMIT, or index what is sorted by"},
	{err: store.ErrOutOfMemory, status: http.StatusServiceUnavailable, code: "out_of_memory", message: "The server's memory for statements is used up; the statement was undone", retry: 2 * time.Second},
	{err: store.ErrDamaged, status: http.StatusServiceUnavailable, code: "database_damaged", message: "The database's file is damaged or gone", hint: "ask the operator to restore it; other databases are not concerned", retry: time.Minute},
	{err: store.ErrStorage, status: http.StatusServiceUnavailable, code: "storage_failed", message: "The server's disk reported an error; whether a write took effect is not known", hint: "read before you write again", retry: 5 * time.Second},
	{err: store.ErrRecording, status: http.StatusConflict, code: "branch_records", message: "The branch records its changes for a merge, so VACUUM is refused", hint: "VACUUM the database that it was made of, and claim the branch anew"},
	{err: store.ErrRebuilding, status: http.StatusServiceUnavailable, code: "database_rebuilding", message: "The database is being replaced by an import or a restore; the write was not done. Reads go on", retry: 2 * time.Second},
	{err: transfer.ErrFault, status: http.StatusBadRequest, code: "import_invalid_file", message: "The engine failed on this file; nothing was changed", hint: "the file is probably damaged: check it with PRAGMA integrity_check"},
	{err: store.ErrFault, status: http.StatusInternalServerError, code: "engine_fault", message: "The engine failed on this request; it was undone"},
	{err: errBuffersFull, status: http.StatusServiceUnavailable, code: "buffers_full", message: "The server's memory for requests and results is used up; nothing was changed", hint: "send and ask for less at a time, or raise PERSQLD_MEMORY", retry: 2 * time.Second},
	{err: errTransfersBusy, status: http.StatusTooManyRequests, code: "transfers_busy", message: "Too many exports and imports are under way", hint: "try again after the time in Retry-After, or raise PERSQLD_MAX_TRANSFERS", retry: 5 * time.Second},
	{err: errTransferTime, status: http.StatusRequestTimeout, code: "transfer_timeout", message: "The export or import ran over its time limit; nothing was changed", hint: "send less at a time, or raise PERSQLD_TRANSFER_TIMEOUT"},
	{err: errUploadTooLarge, status: http.StatusRequestEntityTooLarge, code: "upload_too_large", message: "The file is larger than the limit", hint: "send it in parts, or raise PERSQLD_MAX_IMPORT (for CSV, PERSQLD_MAX_CSV)"},
	{err: errResultTooLarge, status: http.StatusRequestEntityTooLarge, code: "result_too_large", message: "The result is larger than the limit", hint: "page with LIMIT and OFFSET, or select fewer columns"},
	{err: errAnswerTooLargeToKeep, status: http.StatusRequestEntityTooLarge, code: "result_too_large", message: "The answer of a write with an idempotency key may have at most 1 MB; the write was undone", hint: "return fewer rows, or send the write without a key"},
	{err: context.Canceled, status: statusClientGone, code: "cancelled", message: "The client closed the connection"},
	{err: context.DeadlineExceeded, status: http.StatusServiceUnavailable, code: codeShuttingDown, message: "The server is shutting down", retry: 5 * time.Second},
}

// driftHint is what to do where an approved write would change more than people saw.
const driftHint = "send the write again: it is held anew"

// faultOf is what an error means to a client. What nothing is known of is a failure of ours, whose words stay here.
func (s *Server) faultOf(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	if f := emptyFault(err); f != nil {
		return f
	}
	for i := range table {
		if t := &table[i]; errors.Is(err, t.err) {
			return &fault{status: t.status, code: t.code, message: t.message, hint: t.hint, retry: t.retry, index: -1}
		}
	}
	var up *transfer.Error
	if errors.As(err, &up) {
		return transferFault(up)
	}
	var newer *store.NewerError
	if errors.As(err, &newer) {
		message := newer.Error()
		f := newFault(http.StatusServiceUnavailable, "database_newer", strings.ToUpper(message[:1])+message[1:], "run the version of the server that wrote it, or a newer one; other databases are not concerned")
		f.retry = time.Minute
		return f
	}
	var w *wire.Error
	if errors.As(err, &w) {
		f := newFault(http.StatusBadRequest, w.Code, w.Message, w.Hint)
		f.index = w.StatementIndex
		switch w.Code {
		case wire.CodeTypeMismatch, wire.CodeTooManyParams:
			f.detail = &sqlDetail{kind: w.Code, message: w.Message, hint: w.Hint, offset: -1}
		}
		return f
	}
	var drifted *approval.DriftError
	if errors.As(err, &drifted) {
		return newFault(http.StatusConflict, codeApprovalMismatch, drifted.Error(), driftHint)
	}
	var stop *approval.Stop
	if errors.As(err, &stop) { // of which more is told where the request ends
		f := newFault(http.StatusForbidden, codeApprovalRequired, stop.Error(), "")
		if stop.Denied() {
			f.code = codeApprovalDenied
		}
		return f
	}
	var r *gate.Refusal
	if errors.As(err, &r) {
		status, kind := http.StatusForbidden, "readonly"
		if r.Request {
			status, kind = http.StatusBadRequest, codeSyntax
		}
		if r.Code != gate.CodeRole && !r.Request {
			kind = "unknown"
		}
		f := newFault(status, r.Code, r.Message, r.Hint)
		f.detail = &sqlDetail{kind: kind, message: r.Message, hint: r.Hint, offset: -1}
		return f
	}
	var b *sqlite.BindError
	if errors.As(err, &b) {
		kind := wire.CodeTypeMismatch
		if b.TooMany {
			kind = wire.CodeTooManyParams
		}
		f := newFault(http.StatusBadRequest, kind, b.Message, "")
		f.detail = &sqlDetail{kind: kind, message: b.Message, offset: -1}
		return f
	}
	var e *sqlite.Error
	if errors.As(err, &e) {
		if e.Cause != nil && e.Code.Primary() == sqlite.CodeInterrupt {
			return s.faultOf(e.Cause)
		}
		return sqlFault(e, nil, "")
	}
	s.log.Error("a request failed for a reason of the server's", "error", err)
	return newFault(http.StatusInternalServerError, "internal", "The server failed on this request", "")
}

// retrySeconds is d in whole seconds, at least one.
func retrySeconds(d time.Duration) int { return max(1, int(math.Ceil(d.Seconds()))) }

// retryAfter is the header of that name.
func retryAfter(d time.Duration) []string { return []string{strconv.Itoa(retrySeconds(d))} }

// appendFault writes the failure envelope of a request.
func (x *exchange) appendFault(b []byte, f *fault, completed []byte) []byte {
	b = appendFault(b, f, x.id, completed)
	if f.empty != nil && x.token != nil {
		b = x.appendEmpty(b, f.empty)
	}
	return b
}

// appendFault writes the failure envelope. completed, if not nil, is the JSON array of a batch's results that stand.
func appendFault(b []byte, f *fault, requestID string, completed []byte) []byte {
	b = append(b, `{"success":false,"error":`...)
	b = wire.AppendString(b, f.message)
	b = append(b, `,"code":`...)
	b = wire.AppendString(b, f.code)
	b = append(b, `,"requestId":`...)
	b = wire.AppendString(b, requestID)
	if f.hint != "" {
		b = append(b, `,"hint":`...)
		b = wire.AppendString(b, f.hint)
	}
	if f.retry > 0 {
		b = fmt.Appendf(b, `,"retryAfterSeconds":%d`, retrySeconds(f.retry))
	}
	if f.detail != nil || f.index >= 0 {
		d := f.detail
		if d == nil {
			d = &sqlDetail{kind: "unknown", message: f.message, hint: f.hint, offset: -1}
		}
		b = append(b, `,"errorDetail":`...)
		b = d.append(b, f.index)
	}
	if f.conflicts != nil {
		b = append(b, `,"conflicts":`...)
		b = append(b, f.conflicts...)
	}
	b = append(b, f.extra...)
	if completed != nil {
		b = append(b, `,"completed":[`...)
		b = append(b, completed...)
		b = append(b, ']')
	}
	return append(b, '}')
}
