package schema

// Plan is what a merge would do on the parent.
type Plan struct {
	Added, Changed, Removed []Change
	// Statements carry it out, in this order. There are none while there are conflicts.
	Statements []string
	Conflicts  []Conflict
	// Warnings say, for people, what is lost or may fail.
	Warnings []string
	// Renamed are the parent's tables that get another name.
	Renamed []Renamed
	// Rebuilt are the tables whose rows are copied into a new one.
	Rebuilt []string
	// Check are the tables whose foreign keys may have come to be violated, for PRAGMA foreign_key_check: those that were rebuilt, that got a
	// foreign key, and that refer to a table that was rebuilt, changed or removed.
	Check []string
}

// Renamed is a table that gets another name.
type Renamed struct{ From, To string }

// Change is an object that a merge would add, change or remove.
type Change struct {
	Type, Name string
	BeforeSQL  string // "" for one that is added
	AfterSQL   string // "" for one that is removed
}

// Conflict is an object that both sides changed, each in its own way, or that needs what the other side took away.
type Conflict struct {
	Type, Name           string
	Base, Parent, Branch string // its definitions, "" where it isn't
	Reason               string
}

// Empty tells whether the merge has nothing to do.
func (p *Plan) Empty() bool { return len(p.Statements) == 0 && len(p.Conflicts) == 0 }

const (
	legacyOn = "PRAGMA legacy_alter_table=ON"
	// LegacyOff has to run after the statements, also when one of them failed: it is a switch of the connection, which no rollback takes back.
	LegacyOff = "PRAGMA legacy_alter_table=OFF"
)

// Run carries the plan out. exec runs one statement with foreign keys switched off: that is what [sqlite.Conn.System] compiles, inside a
// transaction too, where PRAGMA foreign_keys does nothing.
func (p *Plan) Run(exec func(sql string) error) error {
	switched := false
	for _, sql := range p.Statements {
		switched = switched || sql == legacyOn
		if err := exec(sql); err != nil {
			if switched {
				_ = exec(LegacyOff) // the first error is the one to tell
			}
			return err
		}
	}
	return nil
}
