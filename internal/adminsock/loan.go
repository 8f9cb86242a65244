package adminsock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Loan is a handler's result that comes with an open file. Nobody writes to the file until the client gives it back or is gone.
type Loan struct {
	Result any
	File   *os.File
	Done   func() // called once, when the file is back; it closes it
}

// Borrowed is a file of the server's.
type Borrowed struct {
	*os.File
	conn *net.UnixConn
}

// returned is what a client that gives a file back sends, and what the server answers if the loan held until then.
const returned = 'r'

// Borrow is Call for what the server answers with a Loan. It takes as long as ctx allows, and so may the loan. The caller gives the file back.
func Borrow(ctx context.Context, path, op string, args, result any) (b *Borrowed, err error) {
	conn, err := dial(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if b == nil {
			conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	defer stop()
	if err := send(conn, op, args, true); err != nil {
		return nil, err
	}
	first, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, nr, _, _, err := conn.ReadMsgUnix(first, rights)
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", errors.Join(ctx.Err(), err))
	}
	file, err := fileOf(rights[:nr])
	if err != nil {
		return nil, err
	}
	defer func() {
		if b == nil && file != nil {
			file.Close()
		}
	}()
	if err := receive(io.MultiReader(bytes.NewReader(first[:n]), conn), result); err != nil {
		return nil, err
	}
	if file == nil {
		return nil, errors.New("the server answered without the file")
	}
	if !stop() {
		return nil, ctx.Err()
	}
	return &Borrowed{file, conn}, nil
}

// Return gives the file back. Its error says that the server may have written to the file meanwhile, because it ended.
func (b *Borrowed) Return() error {
	defer b.conn.Close()
	defer b.File.Close()
	err := b.conn.SetDeadline(time.Now().Add(deadline))
	if err == nil {
		_, err = b.conn.Write([]byte{returned})
	}
	var answer [1]byte
	if err == nil {
		_, err = io.ReadFull(b.conn, answer[:])
	}
	if err == nil && answer[0] != returned {
		err = fmt.Errorf("it answers %q", answer)
	}
	if err != nil {
		return fmt.Errorf("the server ended while its file was read: %w", err)
	}
	return nil
}

// fileOf is the file that a message came with; nil if it came with none.
func fileOf(rights []byte) (*os.File, error) {
	if len(rights) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("take the server's file: %d messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("take the server's file: %d of them: %w", len(fds), err)
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "borrowed"), nil
}

// lend answers a request for a file, and waits until that is back, the client is gone, or ctx ends.
func lend(ctx context.Context, conn *net.UnixConn, req request, handle Handler) error {
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })()
	asking, gone := context.WithCancel(ctx)
	defer gone()
	back := make(chan bool, 1)
	go func() {
		var b [1]byte
		n, _ := conn.Read(b[:])
		gone() // nobody waits for an answer, if there was none yet
		back <- n == 1
	}()
	defer func() {
		conn.Close() // ends the reading
		<-back
	}()
	result, err := handle(asking, req.Op, req.Args)
	loan, ok := result.(*Loan)
	if err == nil && !ok {
		err = &Error{Message: req.Op + " lends no file", Code: "bad_request"}
	}
	if err != nil {
		return answerTo(conn, nil, err, nil)
	}
	defer loan.Done()
	if err := answerTo(conn, loan.Result, nil, loan.File); err != nil {
		return err
	}
	whole := <-back
	back <- whole
	if !whole {
		return nil
	}
	if err := conn.SetWriteDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	_, err = conn.Write([]byte{returned})
	return err
}
