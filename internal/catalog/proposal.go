package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Proposal is a statement that was looked at and may be run once, by the same bearer on the same database.
type Proposal struct {
	ID            string
	DatabaseID    string
	Requester     string // id of the token, or of a member as user:<id>
	Request       []byte // a query's body
	SchemaVersion int64
	Estimate      int64 // rows; negative where nobody knows
	EstimatedBy   string
	CreatedAt     time.Time
	ExpiresAt     time.Time
}

// The ways of an estimate.
const (
	EstimateExact   = "exact"   // the statement was run, and undone
	EstimateCounted = "counted" // by its condition, or its VALUES
	EstimateNone    = "none"
)

// prefixProposal begins an execution token.
const prefixProposal = "pmut_"

// Propose keeps a proposal and returns its execution token. It returns ErrTooManyProposals for a bearer that has max open ones.
func (c *Catalog) Propose(ctx context.Context, p Proposal, namespaceID string, max int) (token string, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	token = prefixProposal + randomText(randomDigits)
	hash := hashToken(token)
	now := c.moment().UnixMilli()
	err = c.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM proposals WHERE expires_at <= ?`, now); err != nil {
			return err
		}
		open := 0
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM proposals WHERE requester = ?`, p.Requester).Scan(&open); err != nil {
			return err
		}
		if open >= max {
			return ErrTooManyProposals
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO proposals (hash, id, namespace_id, database_id, requester, request, schema_version, estimate, estimated_by, created_at, expires_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, hash[:], NewID("prop"), namespaceID, p.DatabaseID, p.Requester, p.Request, p.SchemaVersion,
			sql.NullInt64{Int64: p.Estimate, Valid: p.Estimate >= 0}, p.EstimatedBy, now, p.ExpiresAt.UnixMilli())
		return err
	}, func(*mirror) {})
	if err != nil {
		return "", fmt.Errorf("keep proposal: %w", err)
	}
	return token, nil
}

// Proposal is the proposal of an execution token, as far as it is this requester's and this database's and not over; else ErrProposal. It reads the file.
func (c *Catalog) Proposal(ctx context.Context, token, requester, databaseID string) (*Proposal, error) {
	if len(token) != len(prefixProposal)+randomDigits || !strings.HasPrefix(token, prefixProposal) {
		return nil, ErrProposal
	}
	hash := hashToken(token)
	p := &Proposal{Requester: requester, DatabaseID: databaseID}
	var estimate sql.NullInt64
	var created, expires int64
	err := c.db.QueryRowContext(ctx, `SELECT id, request, schema_version, estimate, estimated_by, created_at, expires_at FROM proposals WHERE hash = ? AND requester = ? AND database_id = ?`,
		hash[:], requester, databaseID).Scan(&p.ID, &p.Request, &p.SchemaVersion, &estimate, &p.EstimatedBy, &created, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrProposal
	}
	if err != nil {
		return nil, fmt.Errorf("look for proposal: %w", err)
	}
	p.CreatedAt, p.ExpiresAt, p.Estimate = fromMillis(created), fromMillis(expires), -1
	if estimate.Valid {
		p.Estimate = estimate.Int64
	}
	if !c.now().Before(p.ExpiresAt) {
		return nil, ErrProposal
	}
	return p, nil
}

// Applied forgets a proposal that has run. Forgetting it again changes nothing.
func (c *Catalog) Applied(ctx context.Context, id string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	err := c.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM proposals WHERE id = ?`, id)
		return err
	}, func(*mirror) {})
	if err != nil {
		return fmt.Errorf("forget proposal: %w", err)
	}
	return nil
}
