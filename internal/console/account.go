package console

import "time"

// Lengths bound a new password, in bytes.
type Lengths struct{ Min, Max int }

// SignIn asks for an e-mail address and a password.
type SignIn struct {
	Frame
	Email     string // as it was sent, when the form is shown again
	Password  Lengths
	Onward    bool   // something waits behind the sign-in
	SignUpURL string // where accounts are made; empty where nobody makes one alone
	Providers []Link // sign-ins elsewhere
	// NoPassword is where nobody signs in with a password.
	NoPassword bool
}

func (p *SignIn) title() string       { return "Sign in" }
func (p *SignIn) view() (string, any) { return "signin.html", p }

// SignUp asks for what an account is made of.
type SignUp struct {
	Frame
	Email, Name string // as they were sent
	Password    Lengths
	SignInURL   string
	Providers   []Link
	NoPassword  bool
}

func (p *SignUp) title() string       { return "Make an account" }
func (p *SignUp) view() (string, any) { return "signup.html", p }

// Place is a namespace, and what somebody is there.
type Place struct{ Slug, Role string }

// Home is what somebody sees who has signed in and wants nothing else.
type Home struct {
	Frame
	Places []Place
}

func (p *Home) title() string       { return "You are signed in" }
func (p *Home) view() (string, any) { return "home.html", p }

// Message says one thing. With a problem and no text it says what went wrong.
type Message struct {
	Frame
	Title string
	Text  string
	Link  *Link // where to go from here
}

// Link leads to another page of this server.
type Link struct{ URL, Text string }

func (p *Message) title() string       { return p.Title }
func (p *Message) view() (string, any) { return "message.html", p }

// SignedOut is the message after a sign-out.
func SignedOut() *Message {
	return &Message{Title: "You are signed out", Text: "On this browser. Other sessions go on.", Link: &Link{"/login", "Sign in again"}}
}

// Invitation is the page of an invitation's link.
type Invitation struct {
	Frame
	Title     string
	Namespace string
	Role      string
	For       string // the e-mail address that it is for
	ExpiresAt time.Time
	CanSignUp bool // an account can be made
	Open      bool // it can be accepted
	Accepted  bool
	Email     string // as it was sent
	Name      string
	Password  Lengths
	Providers []Link
	// NoPassword is where nobody signs in with a password.
	NoPassword bool
}

func (p *Invitation) title() string       { return p.Title }
func (p *Invitation) view() (string, any) { return "invitation.html", p }
