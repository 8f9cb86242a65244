package approval

import (
	"errors"
	"time"
)

// Status is what has become of an approval.
type Status string

// The states. Pending becomes approved, denied or expired; approved becomes redeemed or expired. The others are ends.
const (
	Pending  Status = "pending"
	Approved Status = "approved"
	Denied   Status = "denied"
	Expired  Status = "expired"
	Redeemed Status = "redeemed"
)

// ParseStatus tells whether a word is a state.
func ParseStatus(word string) (Status, bool) {
	switch s := Status(word); s {
	case Pending, Approved, Denied, Expired, Redeemed:
		return s, true
	}
	return "", false
}

// At is the state at a moment: what waits or may still run ends when its time is over.
func (s Status) At(now, expires time.Time) Status {
	if (s == Pending || s == Approved) && !now.Before(expires) {
		return Expired
	}
	return s
}

// Over tells whether nothing can become of it any more.
func (s Status) Over() bool { return s != Pending && s != Approved }

var (
	// ErrDecided is returned for a decision on what is decided already.
	ErrDecided = errors.New("the approval is decided already")
	// ErrVoted is returned for a second vote of the same person.
	ErrVoted = errors.New("this person has approved it already")
	// ErrOver is returned for a decision on what is over its time, or has run.
	ErrOver = errors.New("the approval is over")
	// ErrRank is returned for the vote of somebody whose role is too low.
	ErrRank = errors.New("this role may not decide on it")
	// ErrOwn is returned for the vote of the person whose token asks, where a rule excludes that.
	ErrOwn = errors.New("whoever owns the requesting token may not decide on it")
)

// Vote is what somebody says.
type Vote struct {
	UserID  string
	Role    string // in the namespace
	Approve bool
	Reason  string
	At      time.Time
}

// Ballot is what a vote is weighed by.
type Ballot struct {
	Status    Status
	ExpiresAt time.Time
	Need      Need
	Owner     string // the user who owns the requesting token; "" where nobody is known to
	Votes     []Vote // so far, all of them for it
}

// Needed is how many people have to approve it. Where nobody can be barred, since nobody knows whose the requesting token is, it takes one more: whoever of them
// asked, as many as the rule wants of the others have said yes.
func (b *Ballot) Needed() int {
	n := max(1, b.Need.Approvers)
	if b.Need.ExcludeRequester && b.Owner == "" {
		n++
	}
	return n
}

// May is why somebody may not vote at a moment; nil if they may.
func (b *Ballot) May(userID, role string, now time.Time) error {
	switch status := b.Status.At(now, b.ExpiresAt); {
	case status == Expired || status == Redeemed:
		return ErrOver
	case status != Pending:
		return ErrDecided
	case Rank(role) < max(Rank(RoleEditor), Rank(b.Need.Role)):
		return ErrRank
	case b.Need.ExcludeRequester && b.Owner != "" && b.Owner == userID:
		return ErrOwn
	}
	for _, v := range b.Votes {
		if v.UserID == userID {
			return ErrVoted
		}
	}
	return nil
}

// Cast is the state after a vote: one no denies, and as many people as it needs approve.
func (b *Ballot) Cast(v Vote) (Status, error) {
	err := b.May(v.UserID, v.Role, v.At)
	if errors.Is(err, ErrVoted) && !v.Approve {
		err = nil // who has said yes may think better of it
	}
	if err != nil {
		return b.Status, err
	}
	switch {
	case !v.Approve:
		return Denied, nil
	case len(b.Votes)+1 >= b.Needed():
		return Approved, nil
	}
	return Pending, nil
}
