package console

import "time"

// Consent asks a person whether an app gets what it asks for.
type Consent struct {
	Frame
	App        string   // its name, by its own word
	Host       string   // where the answer goes
	Unknown    bool     // nobody here knows whose app it is: it registered itself, or its name is by its own word alone
	Site       string   // the host that describes the app, whose word its name is then; "" for none
	Gets       []string // what it gets, each a sentence without its full stop
	Namespaces []NamespaceChoice
	Switch     string // where to sign in as somebody else
	Action     string // where the form goes
	Request    string // what is asked, in the words of who handles the form,
	Seal       string // and that this page showed it
}

// NamespaceChoice is a namespace that the app may get, and what it may do there.
type NamespaceChoice struct {
	Value      string // in the words of who handles the form
	Slug, Role string
	Picked     bool
}

func (p *Consent) title() string       { return "An app asks for access" }
func (p *Consent) view() (string, any) { return "consent.html", p }

// ConnectedApps are the apps that somebody has connected.
type ConnectedApps struct {
	Frame
	Apps []ConnectedApp
}

// ConnectedApp is one of them.
type ConnectedApp struct {
	ID, Name string
	Client   string // its client_id
	Gets     []string
	Database string // namespace/slug; empty for none
	Since    time.Time
	Last     time.Time // sign-in; zero for none that lives
}

func (p *ConnectedApps) title() string       { return "Connected apps" }
func (p *ConnectedApps) view() (string, any) { return "apps.html", p }
