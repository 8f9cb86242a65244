package datadir

// OpenWith is Open of a version that has these steps.
func OpenWith(path string, steps ...func(Layout) error) (*Dir, error) {
	list := make([]step, len(steps))
	for i, s := range steps {
		list[i] = s
	}
	return open(path, list)
}
