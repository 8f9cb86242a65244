package console

import "time"

// ConfirmKind is what a sign-in by a provider is to become that no account is linked to.
type ConfirmKind int

// The kinds.
const (
	ConfirmLink      ConfirmKind = iota // it is linked to the account that is signed in
	ConfirmPassword                     // an account has the e-mail address: its password links them
	ConfirmElsewhere                    // an account has it, and no password to be asked for
	ConfirmCreate                       // a new account
)

// Confirm is the page after a provider's sign-in that isn't known here.
type Confirm struct {
	Frame
	Kind        ConfirmKind
	Provider    string // as people call it
	Email, Name string // as the provider says; either may be empty
	Namespace   string // of the invitation that is accepted with a new account; empty for none
	Role        string
	Password    Lengths
}

func (p *Confirm) title() string {
	switch p.Kind {
	case ConfirmLink:
		return "Link this sign-in"
	case ConfirmCreate:
		return "Make an account"
	}
	return "You have an account already"
}
func (p *Confirm) view() (string, any) { return "confirm.html", p }

// Linking, Creating and ByPassword tell the kinds apart.
func (p *Confirm) Linking() bool    { return p.Kind == ConfirmLink }
func (p *Confirm) Creating() bool   { return p.Kind == ConfirmCreate }
func (p *Confirm) ByPassword() bool { return p.Kind == ConfirmPassword }

// LinkedSignIn is a provider's sign-in that opens an account.
type LinkedSignIn struct {
	ID       string
	Provider string
	Name     string // what the person was called there
	At       time.Time
}

// Account is a person's own account.
type Account struct {
	Frame
	Name, Email    string
	EmailVerified  bool
	Since          time.Time // of this session
	Others         int       // sessions
	Places         []Place
	Linked         []LinkedSignIn
	Linkable       []Link // to the providers
	HasPassword    bool
	TakesPasswords bool // the server does
	Password       Lengths
}

func (p *Account) title() string       { return "Your account" }
func (p *Account) view() (string, any) { return "account.html", p }

// Sessions are all of the person's sessions, in words.
func (p *Account) Sessions() string { return noun(int64(p.Others), "other session") }

// Reset is the page of a link by which somebody sets another password.
type Reset struct {
	Frame
	Email    string
	Open     bool // the link works
	Password Lengths
}

func (p *Reset) title() string       { return "Set a new password" }
func (p *Reset) view() (string, any) { return "reset.html", p }

// PasswordSet is the message after that.
func PasswordSet(email string) *Message {
	return &Message{Title: "The password is set", Text: "Of the account " + plain(email) + ". All of its sessions have ended.", Link: &Link{"/login", "Sign in"}}
}

// SignedOutEverywhere is the message after a sign-out of all sessions.
func SignedOutEverywhere() *Message {
	return &Message{Title: "You are signed out", Text: "Everywhere: all of your sessions have ended.", Link: &Link{"/login", "Sign in again"}}
}
