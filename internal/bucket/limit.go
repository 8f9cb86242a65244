package bucket

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"
)

// What Limits are where they aren't set.
const (
	DefaultRequestsPerSecond = 50
	DefaultConcurrent        = 8
	DefaultTries             = 8
	DefaultTryTimeout        = 30 * time.Second
	DefaultMinBytesPerSecond = 64 << 10
	DefaultFirstPause        = 200 * time.Millisecond
	DefaultLongestPause      = 20 * time.Second
	DefaultPutOnePiece       = 64 << 20
	DefaultPartSize          = 16 << 20
)

// Limits bound what is asked of S3. A field that is 0 has its default.
type Limits struct {
	RequestsPerSecond float64       // that are begun, 0.01 to 10,000; as many may be begun at once, and at least one
	Concurrent        int           // requests at a time, 1 to 1000. A Get counts until its headers are there: reading it needs no turn of others
	Tries             int           // of a request in all, 1 to 100
	TryTimeout        time.Duration // for a try, 1 ms to 1 h, and for what its body needs at MinBytesPerSecond; for a Get, of each silence
	MinBytesPerSecond int64         // the slowest that an upload may be, 1 to 1 GiB
	FirstPause        time.Duration // before the second try, 1 ms to 1 h; each further one is twice as long, up to LongestPause, less up to half of it by chance
	LongestPause      time.Duration // between tries, FirstPause to 1 h
	PutOnePiece       int64         // bytes that are put with one request, 5 MiB to 5 GiB; more are put in parts
	PartSize          int64         // bytes of a part, 5 MiB to 5 GiB; more where they would be more than 10,000
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.RequestsPerSecond, DefaultRequestsPerSecond)
	setDefault(&l.Concurrent, DefaultConcurrent)
	setDefault(&l.Tries, DefaultTries)
	setDefault(&l.TryTimeout, DefaultTryTimeout)
	setDefault(&l.MinBytesPerSecond, DefaultMinBytesPerSecond)
	setDefault(&l.FirstPause, DefaultFirstPause)
	setDefault(&l.LongestPause, max(l.FirstPause, DefaultLongestPause))
	setDefault(&l.PutOnePiece, DefaultPutOnePiece)
	setDefault(&l.PartSize, DefaultPartSize)
	return l
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (l Limits) check() error {
	return errors.Join(
		within("RequestsPerSecond", l.RequestsPerSecond, 0.01, 10_000),
		within("Concurrent", l.Concurrent, 1, 1000),
		within("Tries", l.Tries, 1, 100),
		within("TryTimeout", l.TryTimeout, time.Millisecond, time.Hour),
		within("MinBytesPerSecond", l.MinBytesPerSecond, 1, 1<<30),
		within("FirstPause", l.FirstPause, time.Millisecond, time.Hour),
		within("LongestPause", l.LongestPause, l.FirstPause, time.Hour),
		within("PutOnePiece", l.PutOnePiece, 5<<20, 5<<30),
		within("PartSize", l.PartSize, 5<<20, 5<<30),
	)
}

func within[T int | int64 | float64 | time.Duration](name string, value, least, most T) error {
	if value < least || value > most {
		return fmt.Errorf("the limit %s is %v to %v, not %v", name, least, most, value)
	}
	return nil
}

// gate lets requests through as Limits allow, and makes them again where that may help.
type gate struct {
	Options
	where string
	rate  *rate.Limiter
	slots chan struct{} // one for each request that is being made
	// judge tells of an error that isn't the caller's context's: what the caller is to see of it, what an operator may do, and whether to try again.
	judge func(error) verdict
}

// verdict is what an error means.
type verdict struct {
	err   error
	hint  string
	again bool
}

func newGate(o Options, where string, judge func(error) verdict) *gate {
	burst := max(1, int(o.Limits.RequestsPerSecond))
	return &gate{Options: o, where: where, rate: rate.NewLimiter(rate.Limit(o.Limits.RequestsPerSecond), burst),
		slots: make(chan struct{}, o.Limits.Concurrent), judge: judge}
}

// request is one that do makes.
type request struct {
	op    Op
	key   string
	bytes int64 // that it sends: it may take longer
	// streams says that the try leaves something to be read: it bounds its time by itself, and whoever reads tells the observer.
	streams bool
}

// do makes a request until it succeeds, tries run out or trying doesn't help. What it returns is an *Error.
func (g *gate) do(ctx context.Context, r request, try func(ctx context.Context) error) error {
	for n := 1; ; n++ {
		if err := g.enter(ctx); err != nil {
			return &Error{Op: r.op, Key: r.key, Where: g.where, Tries: n - 1, Err: err}
		}
		began := g.Now()
		err := g.once(ctx, r, try)
		seconds := g.Now().Sub(began).Seconds()
		<-g.slots
		if err == nil {
			if !r.streams {
				g.Observer.Tried(r.op, OK, seconds, r.bytes)
			}
			return nil
		}
		if ended(ctx, err) {
			g.Observer.Tried(r.op, Canceled, seconds, 0)
			return &Error{Op: r.op, Key: r.key, Where: g.where, Tries: n, Err: ctx.Err()}
		}
		v := g.judge(err)
		if !v.again || n >= g.Limits.Tries {
			g.Observer.Tried(r.op, outcomeOf(v.err), seconds, 0)
			return &Error{Op: r.op, Key: r.key, Where: g.where, Tries: n, Hint: v.hint, Err: v.err}
		}
		g.Observer.Tried(r.op, Retried, seconds, 0)
		if err := g.Sleep(ctx, g.pause(n)); err != nil {
			return &Error{Op: r.op, Key: r.key, Where: g.where, Tries: n, Err: fmt.Errorf("%w while waiting to try again; last: %w", err, v.err)}
		}
	}
}

// once makes a request once, in the time that it has.
func (g *gate) once(ctx context.Context, r request, try func(ctx context.Context) error) error {
	if r.streams {
		return try(ctx)
	}
	limit := g.Limits.TryTimeout + time.Duration(float64(r.bytes)/float64(g.Limits.MinBytesPerSecond)*float64(time.Second))
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSlow{limit})
	defer cancel()
	err := try(ctx)
	if err != nil {
		if slow, ok := context.Cause(ctx).(errSlow); ok {
			return slow
		}
	}
	return err
}

// errSlow says that a try's time was over.
type errSlow struct{ limit time.Duration }

func (e errSlow) Error() string {
	return fmt.Sprintf("no answer within %v", e.limit.Round(time.Millisecond))
}

// enter waits for a turn, which ends with a receive from slots.
func (g *gate) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := g.Now()
	turn := g.rate.ReserveN(now, 1)
	if d := turn.DelayFrom(now); d > 0 {
		if err := g.Sleep(ctx, d); err != nil {
			turn.CancelAt(g.Now())
			return err
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case g.slots <- struct{}{}:
		return nil
	}
}

// pause is how long to wait after a number of tries. Chance keeps those that failed together from coming back together.
func (g *gate) pause(tries int) time.Duration {
	p := g.Limits.FirstPause
	for range tries - 1 {
		if p = 2 * p; p >= g.Limits.LongestPause {
			p = g.Limits.LongestPause
			break
		}
	}
	return p - time.Duration(rand.Int64N(int64(p)/2+1))
}
