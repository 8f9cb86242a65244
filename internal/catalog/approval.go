package catalog

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/persqld/persqld/internal/approval"
)

// Approval is a write that waits for people, or waited.
type Approval struct {
	ID            string
	NamespaceID   string
	DatabaseID    string
	Requester     string // id of a token, or of a member as user:<id>
	RequesterName string
	Owner         string // the user who answers for the requester; "" where nobody is known to
	Kind          string // the call
	Request       []byte // what the call runs with; nil when it is over
	Content       []byte // what is shown of it, a JSON object; nil when it is over
	Hits          []approval.Record
	SchemaMark    int64            // of the schema that it was asked for on
	Counts        []approval.Count // the rows that it would have changed when people approved it, the least of what each saw; nil where nobody knows
	Need          approval.Need
	Test          bool
	Status        approval.Status // at the moment that it was read
	RequestedAt   time.Time
	ExpiresAt     time.Time // of a pending one: to decide; of an approved one: to redeem
	DecidedAt     time.Time
	RedeemedAt    time.Time
	Votes         []approval.Vote
}

// NewApproval is what an approval is made of.
type NewApproval struct {
	Database      *Database
	Requester     string
	RequesterName string
	Owner         string
	Kind          string
	Request       []byte
	Content       []byte
	SQL           string   // for the audit log, at most MaxAuditSQL bytes of it
	Fingerprint   [32]byte // of what is asked: the same by the same requester is the same approval while it waits
	Hits          []approval.Hit
	SchemaMark    int64
	Lives         time.Duration // while it waits
	MaxPending    int           // of the requester, in all databases
}

// pendingTokens is how many tokens' pending approvals a database may have.
const pendingTokens = 10

// MaxAuditSQL is how much of a held write's SQL the audit log keeps, in bytes. It is kept for good.
const MaxAuditSQL = 100_000

// prefixApproval begins the token of an approval, which opens nothing by itself.
const prefixApproval = "appr_"

// ApprovalID begins the id of an approval.
const ApprovalID = "apv"

func approvalEvent(action string, a *Approval, metadata map[string]any) Event {
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["databaseId"], metadata["kind"], metadata["requestedBy"] = a.DatabaseID, a.Kind, a.Requester
	return Event{NamespaceID: a.NamespaceID, Action: action, TargetType: "approval", TargetID: a.ID, TargetName: a.RequesterName, Test: a.Test, Metadata: metadata}
}

// Hold makes an approval that waits, and returns its token. What the requester has asked for already, and is not decided, is that one again, with
// its token, and made is false. It returns ErrTooManyApprovals.
func (c *Catalog) Hold(ctx context.Context, n NewApproval) (a *Approval, token string, made bool, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	now := c.moment()
	var id string
	var sealed []byte
	pending := 0
	err = each(ctx, c.db, `SELECT id, sealed, database_id = ? AND fingerprint = ? FROM approvals WHERE requester = ? AND status = 'pending' AND expires_at > ?`, func(rows *sql.Rows) error {
		var same bool
		var one string
		var secret []byte
		if err := rows.Scan(&one, &secret, &same); err != nil {
			return err
		}
		pending++
		if same {
			id, sealed = one, secret
		}
		return nil
	}, n.Database.ID, n.Fingerprint[:], n.Requester, now.UnixMilli())
	if err != nil {
		return nil, "", false, fmt.Errorf("hold write: %w", err)
	}
	if id != "" {
		if a, token, err = c.heldAgain(ctx, id, sealed); err != nil {
			return nil, "", false, fmt.Errorf("hold write: %w", err)
		}
		return a, token, false, nil
	}
	all := 0 // of whichever token: an admin's could mint others
	if err := c.db.QueryRowContext(ctx, `SELECT count(*) FROM approvals WHERE database_id = ? AND status = 'pending' AND expires_at > ?`, n.Database.ID, now.UnixMilli()).Scan(&all); err != nil {
		return nil, "", false, fmt.Errorf("hold write: %w", err)
	}
	if pending >= n.MaxPending || all >= pendingTokens*n.MaxPending {
		return nil, "", false, fmt.Errorf("hold write: %w", ErrTooManyApprovals)
	}
	token = prefixApproval + randomText(randomDigits)
	hash := hashToken(token)
	a = &Approval{ID: NewID(ApprovalID), NamespaceID: n.Database.NamespaceID, DatabaseID: n.Database.ID, Requester: n.Requester, RequesterName: n.RequesterName, Owner: n.Owner,
		Kind: n.Kind, Request: n.Request, Content: n.Content, Hits: approval.Records(n.Hits), SchemaMark: n.SchemaMark, Need: approval.Needs(n.Hits), Test: n.Database.Test, Status: approval.Pending,
		RequestedAt: now, ExpiresAt: now.Add(n.Lives)}
	if sealed, err = c.seal.close(token, a.ID); err != nil {
		return nil, "", false, fmt.Errorf("hold write: %w", err)
	}
	hits, err := json.Marshal(a.Hits)
	if err != nil {
		return nil, "", false, fmt.Errorf("hold write: %w", err)
	}
	metadata := map[string]any{"sql": n.SQL[:min(len(n.SQL), MaxAuditSQL)], "hits": a.Hits, "expiresAt": a.ExpiresAt}
	if len(n.SQL) > MaxAuditSQL {
		metadata["sqlBytes"], metadata["sqlSha256"] = len(n.SQL), fmt.Sprintf("%x", sha256.Sum256([]byte(n.SQL)))
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO approvals (id, hash, sealed, fingerprint, namespace_id, database_id, requester, requester_name, owner, kind, request, content, hits, schema_mark,
			approvers, approver_role, exclude_requester, test, status, requested_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?)`,
			a.ID, hash[:], sealed, n.Fingerprint[:], a.NamespaceID, a.DatabaseID, a.Requester, a.RequesterName, nullText(a.Owner), a.Kind, a.Request, string(a.Content), string(hits), a.SchemaMark,
			a.Need.Approvers, a.Need.Role, a.Need.ExcludeRequester, a.Test, a.RequestedAt.UnixMilli(), a.ExpiresAt.UnixMilli()); err != nil {
			return err
		}
		if err := c.queueApproval(ctx, tx, EventApprovalRequired, MessageApprovalRequired, a, string(approval.Pending)); err != nil {
			return err
		}
		return c.audit(ctx, tx, approvalEvent("approval.required", a, metadata))
	}, func(*mirror) {})
	if err != nil {
		return nil, "", false, fmt.Errorf("hold write: %w", err)
	}
	c.queued.Add(1)
	return a, token, true, nil
}

// heldAgain is an approval that waits, with its token. Where the key is lost that sealed it, it gets another one. The caller holds changing.
func (c *Catalog) heldAgain(ctx context.Context, id string, sealed []byte) (*Approval, string, error) {
	token, err := c.seal.reveal(sealed, id)
	if err != nil {
		c.logger.Warn("a pending approval's token can't be recovered; it gets another one", "approval", id, "error", err)
		token = prefixApproval + randomText(randomDigits)
		hash := hashToken(token)
		if sealed, err = c.seal.close(token, id); err != nil {
			return nil, "", err
		}
		err := c.change(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `UPDATE approvals SET hash = ?, sealed = ? WHERE id = ?`, hash[:], sealed, id)
			return err
		}, func(*mirror) {})
		if err != nil {
			return nil, "", err
		}
	}
	a, err := c.approval(ctx, `id = ?`, id)
	return a, token, err
}

const (
	selectApprovals = `SELECT id, namespace_id, database_id, requester, requester_name, owner, kind, request, content` + approvalColumns
	// In a list large ones are without what they would run: 500 of them could have a gigabyte.
	selectListed = `SELECT id, namespace_id, database_id, requester, requester_name, owner, kind, NULL, CASE WHEN length(content) <= 65536 THEN content END` + approvalColumns

	approvalColumns = `, hits, schema_mark, counts, approvers, approver_role, exclude_requester, test, status, requested_at, expires_at, decided_at, redeemed_at FROM approvals`
)

// Approval is the approval of a token or an id, or ErrApprovalNotFound. It reads the file.
func (c *Catalog) Approval(ctx context.Context, tokenOrID string) (*Approval, error) {
	if strings.HasPrefix(tokenOrID, prefixApproval) {
		// What is looked up is a hash, whose timing tells nothing of a token.
		hash := hashToken(tokenOrID)
		return c.approval(ctx, `hash = ?`, hash[:])
	}
	return c.approval(ctx, `id = ?`, tokenOrID)
}

func (c *Catalog) approval(ctx context.Context, where string, arg any) (*Approval, error) {
	list, err := c.approvals(ctx, selectApprovals+` WHERE `+where, arg)
	if err != nil {
		return nil, fmt.Errorf("look for approval: %w", err)
	}
	if len(list) == 0 {
		return nil, ErrApprovalNotFound
	}
	return list[0], nil
}

func (c *Catalog) approvals(ctx context.Context, query string, args ...any) ([]*Approval, error) {
	list := []*Approval{}
	now := c.now()
	err := each(ctx, c.db, query, func(rows *sql.Rows) error {
		a := &Approval{}
		var owner, content, counts sql.NullString
		var hits string
		var requested, expires int64
		var decided, redeemed sql.NullInt64
		if err := rows.Scan(&a.ID, &a.NamespaceID, &a.DatabaseID, &a.Requester, &a.RequesterName, &owner, &a.Kind, &a.Request, &content, &hits, &a.SchemaMark, &counts, &a.Need.Approvers, &a.Need.Role,
			&a.Need.ExcludeRequester, &a.Test, &a.Status, &requested, &expires, &decided, &redeemed); err != nil {
			return err
		}
		a.Owner, a.RequestedAt, a.ExpiresAt, a.DecidedAt, a.RedeemedAt = owner.String, fromMillis(requested), fromMillis(expires), fromNullMillis(decided), fromNullMillis(redeemed)
		a.Status = a.Status.At(now, a.ExpiresAt)
		if content.Valid {
			a.Content = []byte(content.String)
		}
		if !now.Before(a.ExpiresAt) { // a sweep is on its way
			a.Request, a.Content = nil, nil
		}
		list = append(list, a)
		if counts.Valid {
			if err := json.Unmarshal([]byte(counts.String), &a.Counts); err != nil {
				return err
			}
		}
		return json.Unmarshal([]byte(hits), &a.Hits)
	}, args...)
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		err := each(ctx, c.db, `SELECT user_id, approve, reason, at FROM approval_votes WHERE approval_id = ? ORDER BY at, user_id`, func(rows *sql.Rows) error {
			var v approval.Vote
			var at int64
			if err := rows.Scan(&v.UserID, &v.Approve, &v.Reason, &at); err != nil {
				return err
			}
			v.At = fromMillis(at)
			a.Votes = append(a.Votes, v)
			return nil
		}, a.ID)
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// ApprovalQuery says which approvals are listed.
type ApprovalQuery struct {
	DatabaseID string
	Status     approval.Status // of all if empty
	Before     string          // id of one: only those asked for before it
	Limit      int
}

// Approvals lists approvals, the newest first, without their requests, and without contents of more than 64 KB. It reads the file.
func (c *Catalog) Approvals(ctx context.Context, q ApprovalQuery) ([]*Approval, error) {
	// What is over its time is expired, whether or not a sweep has said so.
	list, err := c.approvals(ctx, selectListed+` WHERE database_id = ?1
		AND (?2 = '' OR ?2 = CASE WHEN status IN ('pending', 'approved') AND expires_at <= ?3 THEN 'expired' ELSE status END)
		AND (?4 = '' OR seq < (SELECT seq FROM approvals WHERE id = ?4 AND database_id = ?1)) ORDER BY seq DESC LIMIT ?5`,
		q.DatabaseID, string(q.Status), c.now().UnixMilli(), q.Before, q.Limit)
	if err != nil {
		return nil, fmt.Errorf("list approvals: %w", err)
	}
	return list, nil
}

// Ballot is what a vote on it is weighed by.
func (a *Approval) Ballot() *approval.Ballot {
	return &approval.Ballot{Status: a.Status, ExpiresAt: a.ExpiresAt, Need: a.Need, Owner: a.Owner, Votes: a.Votes}
}

// Decide casts a vote, whose time is now. Of any number of votes at the same time one comes after the other. It returns the approval as it is then; ErrApprovalNotFound, or
// one of approval's errors. seen is what the write would change now; nil where nobody knows: then what others saw bounds it, if they did.
func (c *Catalog) Decide(ctx context.Context, id string, v approval.Vote, seen []approval.Count, redeemable time.Duration) (*Approval, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	a, err := c.approval(ctx, `id = ?`, id)
	if err != nil {
		return nil, err
	}
	v.At = c.moment()
	status, err := a.Ballot().Cast(v)
	if err != nil {
		return nil, fmt.Errorf("decide on approval %s: %w", id, err)
	}
	var counts any
	if seen = approval.Least(a.Counts, seen); seen != nil {
		text, err := json.Marshal(seen)
		if err != nil {
			return nil, fmt.Errorf("decide on approval %s: %w", id, err)
		}
		counts = string(text)
	}
	action := "approval.voted"
	expires, decided := a.ExpiresAt, time.Time{}
	switch status {
	case approval.Approved:
		action, expires, decided = "approval.approved", v.At.Add(redeemable), v.At
	case approval.Denied:
		action, decided = "approval.denied", v.At
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO approval_votes (approval_id, user_id, approve, reason, at) VALUES (?, ?, ?, ?, ?)`, id, v.UserID, v.Approve, v.Reason, v.At.UnixMilli()); err != nil {
			return err
		}
		if v.Approve {
			if _, err := tx.ExecContext(ctx, `UPDATE approvals SET counts = ? WHERE id = ?`, counts, id); err != nil {
				return err
			}
		}
		if status != approval.Pending {
			if err := c.queueApproval(ctx, tx, EventApprovalResolved, MessageApprovalResolved, a, string(status)); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE approvals SET status = ?, expires_at = ?, decided_at = ?, sealed = NULL WHERE id = ?`, string(status), expires.UnixMilli(), nullMillis(decided), id); err != nil {
				return err
			}
		}
		metadata := map[string]any{"reason": v.Reason, "sql": auditSQL(a.Content)}
		if v.Approve {
			metadata["rows"] = approval.Total(seen) // null where nobody knows: nothing bounds it then
		}
		return c.audit(ctx, tx, approvalEvent(action, a, metadata))
	}, func(*mirror) {})
	if err != nil {
		return nil, fmt.Errorf("decide on approval %s: %w", id, err)
	}
	c.queued.Add(1)
	return c.approval(ctx, `id = ?`, id)
}

// auditSQL is the SQL of what is shown, for the audit log.
func auditSQL(content []byte) string {
	var shown struct {
		SQL string `json:"sql"`
	}
	_ = json.Unmarshal(content, &shown) // what has none has none
	return shown.SQL[:min(len(shown.SQL), MaxAuditSQL)]
}

// Redeemed notes that an approved write has run. Noting it again changes nothing.
func (c *Catalog) Redeemed(ctx context.Context, id string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	a, err := c.approval(ctx, `id = ?`, id)
	if err != nil {
		return err
	}
	err = c.change(ctx, func(tx *sql.Tx) error { return c.redeem(ctx, tx, a) }, func(*mirror) {})
	if err != nil {
		return fmt.Errorf("note that approval %s was redeemed: %w", id, err)
	}
	return nil
}

// redeemable is the approval of an id that a change uses up, by redeem, in its own transaction; nil where there is none. It returns ErrApprovalUsed. The caller holds changing.
func (c *Catalog) redeemable(ctx context.Context, id string) (*Approval, error) {
	if id == "" {
		return nil, nil
	}
	a, err := c.approval(ctx, `id = ?`, id)
	if err == nil && a.Status != approval.Approved {
		err = ErrApprovalUsed
	}
	return a, err
}

// redeem writes that an approval, if it isn't nil, is used up.
func (c *Catalog) redeem(ctx context.Context, tx *sql.Tx, a *Approval) error {
	if a == nil {
		return nil
	}
	result, err := tx.ExecContext(ctx, `UPDATE approvals SET status = 'redeemed', redeemed_at = ?, request = NULL WHERE id = ? AND status IN ('approved', 'expired')`, c.moment().UnixMilli(), a.ID)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return err
	}
	return c.audit(ctx, tx, approvalEvent("approval.redeemed", a, map[string]any{"sql": auditSQL(a.Content)}))
}

// keepApprovals is how long it is known that an approval was there, after its end.
const keepApprovals = 90 * 24 * time.Hour

// openApprovals are the approvals of a requester that wait, or can be redeemed.
func (c *Catalog) openApprovals(ctx context.Context, requester string) ([]*Approval, error) {
	return c.approvals(ctx, selectListed+` WHERE requester = ? AND status IN ('pending', 'approved')`, requester)
}

// expireApprovals ends approvals that nobody decided on, or redeemed.
func (c *Catalog) expireApprovals(ctx context.Context, tx *sql.Tx, list []*Approval) error {
	now := c.moment().UnixMilli()
	for _, a := range list {
		if _, err := tx.ExecContext(ctx, `UPDATE approvals SET status = 'expired', expires_at = min(expires_at, ?) WHERE id = ?`, now, a.ID); err != nil {
			return err
		}
		if err := c.queueApproval(ctx, tx, EventApprovalResolved, MessageApprovalResolved, a, string(approval.Expired)); err != nil {
			return err
		}
		if err := c.audit(ctx, tx, approvalEvent("approval.expired", a, nil)); err != nil {
			return err
		}
	}
	return nil
}

// SweepApprovals ends the approvals that are over their time, and forgets what they would have run; and proposals that are over. It returns those that ended.
func (c *Catalog) SweepApprovals(ctx context.Context) (ended []*Approval, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	now := c.moment()
	due := false
	err = c.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM approvals WHERE expires_at <= ?1 AND (content IS NOT NULL OR status IN ('pending', 'approved') OR expires_at <= ?2))
		OR EXISTS (SELECT 1 FROM proposals WHERE expires_at <= ?1)`, now.UnixMilli(), now.Add(-keepApprovals).UnixMilli()).Scan(&due)
	if err != nil || !due { // nearly always: then the catalog has no new version
		if err != nil {
			err = fmt.Errorf("sweep approvals: %w", err)
		}
		return nil, err
	}
	ended, err = c.approvals(ctx, selectListed+` WHERE expires_at <= ? AND status IN ('pending', 'approved') LIMIT 1000`, now.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("sweep approvals: %w", err)
	}
	err = c.change(ctx, func(tx *sql.Tx) error {
		if err := c.expireApprovals(ctx, tx, ended); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE approvals SET request = NULL, content = NULL, sealed = NULL WHERE expires_at <= ? AND content IS NOT NULL AND status NOT IN ('pending', 'approved')`, now.UnixMilli()); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM approvals WHERE expires_at <= ?`, now.Add(-keepApprovals).UnixMilli()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM proposals WHERE expires_at <= ?`, now.UnixMilli())
		return err
	}, func(*mirror) {})
	if err != nil {
		return nil, fmt.Errorf("sweep approvals: %w", err)
	}
	c.queued.Add(1)
	return ended, nil
}
