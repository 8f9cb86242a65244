package replica

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/superfly/ltx"

	"github.com/persqld/persqld/internal/bucket"
	"github.com/persqld/persqld/internal/sqlite"
)

// Restorer brings databases back from a replica or a backup.
type Restorer struct {
	Bucket bucket.Bucket
	Temp   string           // a directory for what is fetched
	Now    func() time.Time // the system's if nil
}

func (r *Restorer) now() int64 {
	if r.Now != nil {
		return r.Now().UnixMilli()
	}
	return time.Now().UnixMilli()
}

// Restored says what a restored file is.
type Restored struct {
	Moment
	End   uint64 // the greatest position that the replica has of the database
	Bytes int64
}

// ErrNotKept is returned for a database of which a replica has nothing.
var ErrNotKept = errors.New("the replica has nothing of it")

const (
	// fetchAhead is how many files are fetched before they are applied, at the most.
	fetchAhead = 6
	// fetchInMemory is the size of a file, in bytes, up to which it is held in memory meanwhile.
	fetchInMemory = 1 << 20
	// lookAgain is how often a listing is made anew since files went that it had: whoever ships meanwhile takes away what other files have.
	lookAgain = 3
)

// Database writes a database as it was at a target to a new file.
func (r *Restorer) Database(ctx context.Context, id string, t Target, to string) (Restored, error) {
	return r.restore(ctx, databasePrefix(id), id, t, to)
}

// Catalog writes the catalog as it was at a target to a new file.
func (r *Restorer) Catalog(ctx context.Context, t Target, to string) (Restored, error) {
	return r.restore(ctx, catalogName, "", t, to)
}

// restore writes a database to a file that isn't there yet. The file gets its name when all that it was made of, and SQLite's own check of it, is right, and it
// is durable.
func (r *Restorer) restore(ctx context.Context, prefix, id string, t Target, to string) (done Restored, err error) {
	if _, err := os.Lstat(to); err == nil {
		return done, fmt.Errorf("restore to %s: %w", to, fs.ErrExist)
	}
	scratch := to + ".restoring"
	defer func() {
		if err != nil {
			_ = os.Remove(scratch)
		}
	}()
	for again := 0; ; again++ {
		var gone bool
		done, gone, err = r.build(ctx, prefix, id, t, scratch)
		if err == nil {
			break
		}
		if !gone || again == lookAgain || ctx.Err() != nil {
			return done, err
		}
	}
	if err := examine(scratch); err != nil {
		return done, &MomentError{ID: id, Target: t, Cause: err}
	}
	if err := os.Rename(scratch, to); err != nil {
		return done, err
	}
	return done, syncDir(filepath.Dir(to))
}

// examine has SQLite look whether a file is sound.
func examine(path string) error {
	th := sqlite.NewThread()
	defer th.Close()
	c, err := sqlite.OpenInspection(path, th)
	if err != nil {
		return err
	}
	defer c.Close()
	problems, err := c.Examine(true)
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		return fmt.Errorf("the files fit their checksums, but what they make is no sound database: %s", problems[0])
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// build makes the file, without looking at what it is for SQLite. gone tells that files were missing that a listing had.
func (r *Restorer) build(ctx context.Context, prefix, id string, t Target, scratch string) (done Restored, gone bool, err error) {
	all, err := listAll(ctx, r.Bucket, prefix)
	if err != nil {
		return done, false, err
	}
	if len(all) == 0 {
		return done, false, ErrNotKept
	}
	out, err := os.OpenFile(scratch, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return done, false, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	b := &building{r: r, all: all, bad: map[string]error{}, out: out}
	done.End = uint64(all.end()) - 1
	want, err := choose(ctx, r.Bucket, all, b.bad, t)
	if err == nil {
		err = b.to(ctx, want)
	}
	if err != nil {
		for _, e := range b.bad {
			if d, ok := asDamage(e); ok && d.gone {
				gone = true
			}
		}
		var outside *bucket.Error
		if _, damage := asDamage(err); ctx.Err() != nil || !damage && (errors.As(err, &outside) || errors.Is(err, errHere)) {
			return done, gone, err
		}
		return done, gone, nearest(ctx, r.Bucket, id, all.without(b.bad), t, want.at, err)
	}
	done.Bytes, done.Time = b.bytes, b.ms
	if want.at > 0 {
		done.Position = uint64(want.at) - 1
	}
	return done, false, out.Sync()
}

// errHere is for what failed on this machine, and says nothing about the replica.
var errHere = errors.New("write the restored file")

// building is a database that is being put together.
type building struct {
	r     *Restorer
	all   kept
	bad   map[string]error // files that turned out to be damaged, or gone
	out   *os.File
	state ltx.TXID // that the file has
	ms    int64    // when that was committed
	bytes int64
}

// to builds the state of one transaction. Where a file is damaged another way is looked for.
func (b *building) to(ctx context.Context, want chosen) error {
	if want.at == 0 {
		return b.empty()
	}
	for {
		f, ok := b.all.without(b.bad).beginning(want.at)
		if !ok {
			return b.why(want.at)
		}
		err := b.begin(ctx, f)
		if err == nil && f.last == want.at && want.ms != 0 && b.ms != want.ms {
			err = &DamageError{Key: f.key, What: "has another time than its header had"}
		}
		if _, ok := asDamage(err); ok {
			b.bad[f.key] = err
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	for b.state < want.at {
		way := b.all.without(b.bad).path(b.state, want.at)
		if len(way) == 0 {
			return b.why(want.at)
		}
		err := b.follow(ctx, way)
		if _, ok := asDamage(err); err != nil && !ok {
			return err
		}
	}
	fi, err := b.out.Stat()
	b.bytes = fi.Size()
	return err
}

// why is the reason that there is no way to a transaction: the first file that is missing to it.
func (b *building) why(at ltx.TXID) error {
	for _, f := range b.all {
		if err := b.bad[f.key]; err != nil && f.last <= at && f.last > b.state {
			return err
		}
	}
	if b.state == 0 {
		return &DamageError{Key: "no whole copy", What: "is that old"}
	}
	return &DamageError{Key: fmt.Sprintf("the file that goes on from transaction %s", b.state), What: "is missing"}
}

func (b *building) empty() error {
	if _, err := b.out.Write(sqlite.EmptyFile()); err != nil {
		return errors.Join(errHere, err)
	}
	b.bytes = int64(len(sqlite.EmptyFile()))
	return nil
}

// begin writes a whole copy.
func (b *building) begin(ctx context.Context, f file) error {
	if err := b.out.Truncate(0); err != nil {
		return errors.Join(errHere, err)
	}
	if _, err := b.out.Seek(0, io.SeekStart); err != nil {
		return errors.Join(errHere, err)
	}
	b.state, b.ms = 0, 0
	in, err := get(ctx, b.r.Bucket, f, -1)
	if err != nil {
		return err
	}
	defer in.Close()
	w := bufio.NewWriterSize(b.out, 1<<20)
	lock := ltx.LockPgno(sqlite.PageSize)
	h, err := decodeFile(in, f, func(number uint32, image []byte) error {
		if number == lock+1 {
			if _, err := w.Write(make([]byte, sqlite.PageSize)); err != nil {
				return errors.Join(errHere, err)
			}
		}
		if _, err := w.Write(image); err != nil {
			return errors.Join(errHere, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return errors.Join(errHere, err)
	}
	return b.reached(h)
}

// reached gives the file the length that it has after a transaction.
func (b *building) reached(h ltx.Header) error {
	if err := b.out.Truncate(int64(h.Commit) * sqlite.PageSize); err != nil {
		return errors.Join(errHere, err)
	}
	b.state, b.ms = h.MaxTXID, h.Timestamp
	return nil
}

// follow applies files one after the other, while the next ones are being fetched.
func (b *building) follow(ctx context.Context, way []file) error {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		s   *spool
		err error
	}
	coming := make(chan chan result, fetchAhead)
	go func() {
		defer close(coming)
		for _, f := range way {
			one := make(chan result, 1)
			select {
			case coming <- one:
			case <-ctx.Done():
				return
			}
			go func() {
				s, err := b.r.fetch(ctx, f)
				one <- result{s, err}
			}()
		}
	}()
	var failed error
	i := 0
	for one := range coming {
		got := <-one
		f := way[i]
		i++
		if failed == nil && got.err == nil {
			got.err = b.apply(f, got.s)
		}
		if got.s != nil {
			got.s.close()
		}
		if failed == nil && got.err != nil {
			failed = got.err
			if _, ok := asDamage(failed); ok {
				b.bad[f.key] = failed
			}
			cancel() // and go on, until all that was begun has ended
		}
	}
	cancel()
	if failed == nil {
		failed = ctx.Err()
		if i == len(way) {
			failed = nil
		}
	}
	return failed
}

func (b *building) apply(f file, s *spool) error {
	in, err := s.open()
	if err != nil {
		return errors.Join(errHere, err)
	}
	h, err := decodeFile(in, f, func(number uint32, image []byte) error {
		if _, err := b.out.WriteAt(image, int64(number-1)*sqlite.PageSize); err != nil {
			return errors.Join(errHere, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return b.reached(h)
}

// spool is a file of the replica that was fetched and found right, on its way into a database.
type spool struct {
	memory *bytes.Buffer
	disk   *os.File
}

func (s *spool) open() (io.Reader, error) {
	if s.disk == nil {
		return bytes.NewReader(s.memory.Bytes()), nil
	}
	_, err := s.disk.Seek(0, io.SeekStart)
	return s.disk, err
}

func (s *spool) close() {
	if s.disk != nil {
		s.disk.Close()
		os.Remove(s.disk.Name())
	}
}

// fetch fetches a file and checks it.
func (r *Restorer) fetch(ctx context.Context, f file) (s *spool, err error) {
	in, err := get(ctx, r.Bucket, f, -1)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	s = &spool{}
	var w io.Writer
	if f.size <= fetchInMemory {
		s.memory = bytes.NewBuffer(make([]byte, 0, f.size))
		w = s.memory
		in = limited{io.LimitReader(in, f.size+1), in} // what is longer than the listing said is damaged
	} else {
		if s.disk, err = os.CreateTemp(r.Temp, "replica-*.ltx"); err != nil {
			return nil, errors.Join(errHere, err)
		}
		w = s.disk
	}
	if _, err := decodeFile(io.TeeReader(in, here{w}), f, func(uint32, []byte) error { return nil }); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

type limited struct {
	io.Reader
	io.Closer
}

// here is a file of this machine.
type here struct{ io.Writer }

func (h here) Write(b []byte) (int, error) {
	n, err := h.Writer.Write(b)
	if err != nil {
		err = errors.Join(errHere, err)
	}
	return n, err
}
