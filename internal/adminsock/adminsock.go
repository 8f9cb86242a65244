// Package adminsock lets a subcommand ask the running server for something, over a Unix socket in its data directory
// that nobody but the server's user may open (mode 0600).
//
// The protocol is one JSON object each way on a connection: {"op", "args"} and {"result"} or {"error", "code", "hint"}. With "lend" an open file comes with the
// result, and the connection stays until it is given back.
package adminsock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxMessage bounds a request and an answer, in bytes. A list of 100,000 tokens fits.
	maxMessage = 64 << 20
	// maxPath is the longest path of a socket that the kernel takes, without its closing zero byte.
	maxPath = 107
	// deadline bounds one exchange.
	deadline = 30 * time.Second
)

// ErrNoServer is returned by Call when no server listens on the socket.
var ErrNoServer = errors.New("no server is running on this data directory")

// Error is a failure that the server's handler returned. A handler that returns one decides what the client sees of it;
// of another error the client sees the text.
type Error struct {
	Message string `json:"error"`
	Code    string `json:"code,omitempty"` // a stable word
	Hint    string `json:"hint,omitempty"` // what can be done, if anything
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Handler answers a request. The result is sent as JSON.
type Handler func(ctx context.Context, op string, args json.RawMessage) (result any, err error)

type request struct {
	Op   string          `json:"op"`
	Args json.RawMessage `json:"args,omitempty"`
	Lend bool            `json:"lend,omitempty"`
}

type answer struct {
	Result json.RawMessage `json:"result,omitempty"`
	*Error
}

// Listen makes the socket at path, mode 0600 from its first moment. What lies there is taken away: the caller holds the
// lock of the directory, so it is left over from a server that was killed.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	short, done, err := shorten(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer done()
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		var chmodErr error
		// bind gives the file the mode that the socket has.
		err := conn.Control(func(fd uintptr) { chmodErr = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, chmodErr)
	}}
	l, err := config.Listen(context.Background(), "unix", short)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return &listener{Listener: l, path: path}, nil
}

// listener removes its file by the long name when it is closed.
type listener struct {
	net.Listener
	path string
	once sync.Once
}

func (l *listener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() { err = errors.Join(l.Listener.Close(), os.Remove(l.path)) })
	return err
}

// Serve answers requests until the context ends; then it closes the listener, waits for the requests under way and
// returns nil.
func Serve(ctx context.Context, l net.Listener, handle Handler) error {
	var open sync.WaitGroup
	defer open.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			l.Close() // waits for the call under way
			return nil
		}
		if err != nil {
			l.Close()
			return fmt.Errorf("accept: %w", err)
		}
		open.Go(func() {
			defer conn.Close()
			// A client that sends nothing must not hold up the end of the server.
			defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })()
			// What can't be answered has nobody left to tell.
			_ = serveOne(ctx, conn.(*net.UnixConn), handle)
		})
	}
}

func serveOne(ctx context.Context, conn *net.UnixConn, handle Handler) error {
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	var req request
	if err := json.NewDecoder(io.LimitReader(conn, maxMessage)).Decode(&req); err != nil {
		return answerTo(conn, nil, &Error{Message: "malformed request", Code: "bad_request"}, nil)
	}
	if req.Lend {
		return lend(ctx, conn, req, handle)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadline)
	defer cancel()
	result, err := handle(ctx, req.Op, req.Args)
	return answerTo(conn, result, err, nil)
}

// answerTo sends a result or an error, with a file if there is one.
func answerTo(conn *net.UnixConn, result any, err error, file *os.File) error {
	var ans answer
	if err == nil {
		ans.Result, err = json.Marshal(result)
	}
	if err != nil && !errors.As(err, &ans.Error) {
		ans.Error = &Error{Message: err.Error(), Code: "failed"}
	}
	if file == nil {
		return json.NewEncoder(conn).Encode(ans)
	}
	raw, err := json.Marshal(ans)
	if err != nil {
		return err
	}
	n, _, err := conn.WriteMsgUnix(raw, unix.UnixRights(int(file.Fd())), nil)
	if err == nil && n < len(raw) {
		_, err = conn.Write(raw[n:])
	}
	return err
}

// Call asks the server behind the socket at path and decodes its result into result. It returns ErrNoServer where nobody
// listens (no file, or one that a killed server left), and an *Error for what the server refused.
func Call(ctx context.Context, path, op string, args, result any) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	conn, err := dial(ctx, path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if at, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(at); err != nil {
			return fmt.Errorf("call server: %w", err)
		}
	}
	if err := send(conn, op, args, false); err != nil {
		return err
	}
	return receive(conn, result)
}

// dial connects to the server, or returns ErrNoServer.
func dial(ctx context.Context, path string) (*net.UnixConn, error) {
	short, done, err := shorten(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoServer
	}
	if err != nil {
		return nil, fmt.Errorf("call server: %w", err)
	}
	defer done()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", short)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, ErrNoServer
	}
	if err != nil {
		return nil, fmt.Errorf("call server: %w", err)
	}
	return conn.(*net.UnixConn), nil
}

func send(conn net.Conn, op string, args any, loan bool) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("encode arguments: %w", err)
	}
	if err := json.NewEncoder(conn).Encode(request{Op: op, Args: raw, Lend: loan}); err != nil {
		return fmt.Errorf("call server: %w", err)
	}
	return nil
}

// receive decodes an answer's result, or returns its error.
func receive(in io.Reader, result any) error {
	var ans answer
	if err := json.NewDecoder(io.LimitReader(in, maxMessage)).Decode(&ans); err != nil {
		return fmt.Errorf("read the server's answer (it may have done what was asked): %w", err)
	}
	if ans.Error != nil {
		return ans.Error
	}
	if err := json.Unmarshal(ans.Result, result); err != nil {
		return fmt.Errorf("decode the server's answer: %w", err)
	}
	return nil
}

// shorten is a name of path that the kernel takes as a socket's: where path is too long, the way through a descriptor of
// its folder, which stays open until done is called.
func shorten(path string) (short string, done func(), err error) {
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	name := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	return name, func() { dir.Close() }, nil
}
