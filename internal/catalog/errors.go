package catalog

import (
	"errors"
	"fmt"
)

var (
	// ErrTokenFormat is returned for a token that none could be: its prefix, its characters or its length are wrong.
	ErrTokenFormat = errors.New("invalid token format")
	// ErrTokenUnknown is returned for a well-formed token that opens nothing: never issued, mistyped (its checksum is
	// wrong), revoked or expired. Callers are not told which.
	ErrTokenUnknown = errors.New("invalid or expired token")
	// ErrTokenNotFound is returned when a token is named by an id that doesn't exist.
	ErrTokenNotFound = errors.New("token not found")
	// ErrTokenRevoked is returned when the operator's own token was revoked earlier.
	ErrTokenRevoked = errors.New("this token was revoked")
	// ErrTokenTaken is returned when the operator's own token already belongs to another namespace.
	ErrTokenTaken = errors.New("this token belongs to another namespace")

	// ErrRole is returned for a word that is no role.
	ErrRole = errors.New("unknown role")
	// ErrTableScope is returned for a table scope that no token can have.
	ErrTableScope = errors.New("a tableScope has 1 to 200 names of tables, each of 1 to 255 bytes")
	// ErrClaims is returned for claims that no token can have.
	ErrClaims = errors.New("claims are a JSON object of at most 4096 bytes")
	// ErrPolicyNotFound is returned when a policy is named by an id that the database has none of.
	ErrPolicyNotFound = errors.New("policy not found")
	// ErrPolicyExists is returned when a database has a policy of that name already.
	ErrPolicyExists = errors.New("a policy of this name exists already")
	// ErrTooManyPolicies is returned when a database has as many policies as it can have.
	ErrTooManyPolicies = errors.New("a database has at most 100 policies")
	// ErrRuleNotFound is returned when an approval rule is named by an id that the database has none of.
	ErrRuleNotFound = errors.New("approval rule not found")
	// ErrWebhookNotFound and ErrDeliveryNotFound are returned when one is named by an id that the database, or the webhook, has none of.
	ErrWebhookNotFound  = errors.New("webhook not found")
	ErrDeliveryNotFound = errors.New("delivery not found")
	// ErrTooManyWebhooks is returned when a database has as many webhooks as it may have.
	ErrTooManyWebhooks = errors.New("the database has as many webhooks as it may have")
	// ErrWebhookEvents is returned for events that a webhook can't be told of.
	ErrWebhookEvents = errors.New("events are a list of insert, update, delete, schema, approval_required, approval_resolved and balance_low, at least one")
	// ErrSealed is returned for a secret that can't be read, since the key that sealed it isn't there.
	ErrSealed = errors.New("the secret can't be read: the key that it was sealed with isn't on this machine")
	// ErrTooManyRules is returned when a database has as many approval rules as it can have.
	ErrTooManyRules = errors.New("a database has at most 200 approval rules")
	// ErrScheduleName is returned for a name that no schedule can have.
	ErrScheduleName = errors.New("a schedule's name has 1 to 200 characters, none of them control characters")
	// ErrScheduleExists is returned when a database has a schedule of that name already.
	ErrScheduleExists = errors.New("a schedule of this name exists already")
	// ErrTooManySchedules is returned when a database has as many schedules as it can have.
	ErrTooManySchedules = errors.New("too many schedules")
	// ErrApprovalNotFound is returned for a token or id that no approval has.
	ErrApprovalNotFound = errors.New("approval not found")
	// ErrApprovalUsed is returned for an approval that nobody can use any more.
	ErrApprovalUsed = errors.New("approval expired or redeemed")
	// ErrTooManyApprovals is returned when a token has as many pending approvals as it can have.
	ErrTooManyApprovals = errors.New("too many pending approvals")
	// ErrProposal is returned for an execution token that is unknown, used, expired, or somebody else's. Callers are not told which.
	ErrProposal = errors.New("unknown, used or expired execution token")
	// ErrTooManyProposals is returned when a token has as many open proposals as it can have.
	ErrTooManyProposals = errors.New("too many open proposals")
	// ErrExpiry is returned for a token that would expire before it is made.
	ErrExpiry = errors.New("a token must expire in the future")
	// ErrName is returned for a name of a token or a database that is too long or has control characters.
	ErrName = errors.New("a name has at most 200 characters, none of them control characters")

	// ErrSlug is returned for a slug that doesn't match ^[a-z0-9][a-z0-9-]{0,62}$.
	ErrSlug = errors.New("a slug has 1 to 63 characters from a-z, 0-9 and -, and does not begin with -")

	// ErrNamespaceNotFound is returned when a namespace doesn't exist.
	ErrNamespaceNotFound = errors.New("namespace not found")
	// ErrNamespaceExists is returned when a namespace of that slug is there already.
	ErrNamespaceExists = errors.New("namespace exists already")

	// ErrNamespaceNotEmpty is returned when a namespace is to be deleted that has living databases.
	ErrNamespaceNotEmpty = errors.New("the namespace has databases")
	// ErrRulesChanged is returned when a database has other approval rules than those that were asked.
	ErrRulesChanged = errors.New("other approval rules were made meanwhile")
	// ErrTooManyNamespaces is returned to a user who has made as many namespaces as one may.
	ErrTooManyNamespaces = errors.New("the user has made too many namespaces")

	// ErrEmail is returned for what is no e-mail address.
	ErrEmail = errors.New("an e-mail address has at most 254 bytes and the form name@example.com")
	// ErrUserNotFound is returned when a user doesn't exist, or may not sign in.
	ErrUserNotFound = errors.New("user not found")
	// ErrUserExists is returned when a user of that e-mail address is there already.
	ErrUserExists = errors.New("a user with this e-mail address exists already")
	// ErrSessionUnknown is returned for a cookie's value that opens nothing: never issued, ended, or over its time.
	ErrSessionUnknown = errors.New("not signed in")
	// ErrUserIdentity is returned for what no provider knows somebody as.
	ErrUserIdentity = errors.New("an identity has an issuer and a subject of 1 to 255 bytes")
	// ErrUserIdentityNotFound is returned for an identity that is linked to nobody, or not to the user.
	ErrUserIdentityNotFound = errors.New("linked sign-in not found")
	// ErrIdentityLinked is returned when an identity is to be linked that is linked already.
	ErrIdentityLinked = errors.New("the sign-in is linked to an account already")
	// ErrTooManyUserIdentities is returned when a user has as many identities as one may.
	ErrTooManyUserIdentities = errors.New("an account has at most 20 linked sign-ins")
	// ErrLastWay is returned when the last way to sign in is to be taken away.
	ErrLastWay = errors.New("it is the last way to sign in to the account")
	// ErrResetNotFound is returned for a link to reset a password that is unknown, used, expired, or followed by another.
	ErrResetNotFound = errors.New("reset link not found")
	// ErrMemberRole is returned for a word that is no role of a member.
	ErrMemberRole = errors.New("a member's role is viewer, editor, admin or owner")
	// ErrMemberNotFound is returned when a user is no member of the namespace.
	ErrMemberNotFound = errors.New("member not found")
	// ErrLadder is returned when a member manages another without the role for it.
	ErrLadder = errors.New("the member's role may not do this")
	// ErrLastOwner is returned when the last owner is to leave, or to become something else.
	ErrLastOwner = errors.New("a namespace keeps an owner")
	// ErrInvitationNotFound is returned for an invitation that is unknown, accepted, revoked or expired.
	ErrInvitationNotFound = errors.New("invitation not found")
	// ErrInvitationEmail is returned when an invitation is accepted by somebody with another e-mail address.
	ErrInvitationEmail = errors.New("the invitation is for another e-mail address")
	// ErrAlreadyMember is returned when a member accepts an invitation to the same namespace.
	ErrAlreadyMember = errors.New("the user is a member already")
	// ErrTooManyInvitations is returned when a namespace has as many open invitations as it may.
	ErrTooManyInvitations = errors.New("the namespace has too many open invitations")

	// ErrDatabaseNotFound is returned when a database doesn't exist and none of its slug ever did.
	ErrDatabaseNotFound = errors.New("database not found")
	// ErrDatabaseEnded is returned for the slug of a database that was deleted: it makes no new one by being used.
	ErrDatabaseEnded = fmt.Errorf("%w: it was deleted", ErrDatabaseNotFound)
	// ErrDatabaseLives is returned when a database is to be brought back that lives, under another slug.
	ErrDatabaseLives = errors.New("the database is not deleted")
	// ErrSlugTaken is returned when a database is to be brought back under the slug of another one.
	ErrSlugTaken = errors.New("another database has this slug")

	// ErrIdentityUnknown is returned for a machine identity that has no namespace of its own, or no binding.
	ErrIdentityUnknown = errors.New("the identity is not known here")
	// ErrIdentityMismatch is returned where the name of a machine identity and its ids are not those that belong together: somebody else has the name now.
	ErrIdentityMismatch = errors.New("the identity's name and its id do not belong together")
	// ErrIdentityName is returned for what can't be the name of a machine identity.
	ErrIdentityName = errors.New("an identity has 1 to 256 characters of ASCII without white space, such as owner/repo")
	// ErrIdentityBound is returned where an identity is bound to another namespace.
	ErrIdentityBound = errors.New("the identity is bound to another namespace")
	// ErrBindingNotFound is returned when a binding is named that isn't there.
	ErrBindingNotFound = errors.New("binding not found")
	// ErrTooManyBindings is returned when a namespace has as many bindings as it can have.
	ErrTooManyBindings = errors.New("a namespace has at most 1000 bindings")
	// ErrTooManyIdentities is returned where as many identities have a namespace as may.
	ErrTooManyIdentities = errors.New("too many identities have a namespace already")
	// ErrAssertionUsed is returned for an assertion that was used before.
	ErrAssertionUsed = errors.New("the assertion was used already")

	// ErrOAuthUnknown is returned for a code or token of OAuth that gets nothing: never issued, expired, ended, or agreed to no more.
	ErrOAuthUnknown = errors.New("unknown or expired")
	// ErrOAuthReused is returned for a code or refresh token that was used before.
	ErrOAuthReused = errors.New("used before")
	// ErrOAuthGrantNotFound is returned when a connected app is named that the user has none of.
	ErrOAuthGrantNotFound = errors.New("connected app not found")
	// ErrOAuthDatabase is returned when an app is to have a database and none was made for it.
	ErrOAuthDatabase = errors.New("the app has no database")
	// ErrOAuthClientNotFound is returned for a client_id that no client has, or no app of the namespace.
	ErrOAuthClientNotFound = errors.New("OAuth client not found")
	// ErrOAuthClientPublic is returned when the secret of a client is to be rotated that has none.
	ErrOAuthClientPublic = errors.New("a public client has no secret")
	// ErrOAuthClientName is returned for a name that people can't be shown.
	ErrOAuthClientName = errors.New("a client's name has 1 to 200 characters, all of which can be seen")
	// ErrRedirectURIs is returned for a list of redirect URIs that no client can have.
	ErrRedirectURIs = errors.New("a client has 1 to 20 redirect URIs, none of them twice")
	// ErrOAuthScope is returned for scopes that no client can be kept to.
	ErrOAuthScope = errors.New("scopes are at most 20 words of printable ASCII, each of at most 100 bytes, none of them twice")
	// ErrTooManyOAuthClients is returned where there are as many apps of a namespace, or clients that registered themselves, as may be.
	ErrTooManyOAuthClients = errors.New("too many OAuth clients")
	// ErrTooManyOAuthSecrets is returned when as many secrets of a client work as may.
	ErrTooManyOAuthSecrets = errors.New("at most 5 secrets of a client work at the same time")

	// ErrNewer is returned by Open for a file that a newer version of the program wrote. The error's text names its schema
	// and the one that this version knows.
	ErrNewer = errors.New("the catalog is of a newer version")

	// ErrDiskFull is returned by a change for which the disk has no room; nothing was changed. Look-ups go on.
	ErrDiskFull = errors.New("disk is full")
	// ErrClosed is returned by changes after Close.
	ErrClosed = errors.New("catalog is closed")
)
