package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// containerScript makes what a container runtime makes of an image that runs read-only: in its own namespaces of
// mounts, processes and network, the root bound read-only, one volume writable in it, and the program without
// privileges. Nothing else is mounted, not even /proc, which is less than any runtime gives. All mounts go with the
// namespace, that is with the process, however it ends.
const containerScript = `
root=$1 volume=$2 target=$3 user=$4; shift 4
ip link set lo up
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$volume" "$root$target"
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" "$@"
`

// ContainerOptions say what is run, as an image and its user do.
type ContainerOptions struct {
	Root   string   // the image's root file tree
	Volume string   // a folder, mounted writable …
	Target string   // … here
	User   string   // uid:gid, in numbers
	Env    []string // nothing else is in the environment, but for PATH
	Args   []string
}

// Container is a program that runs in a root file tree of its own.
type Container struct {
	o    ContainerOptions
	t    testing.TB
	cmd  *exec.Cmd
	out  safeBuffer
	done chan struct{}
	pid  int
}

// NeedContainers skips the test, by name, where no Container can be run.
func NeedContainers(t testing.TB) {
	t.Helper()
	for _, program := range []string{"unshare", "nsenter", "setpriv", "chroot", "mount", "ip"} {
		Need(t, program)
	}
	if os.Geteuid() != 0 {
		Lacking(t, "root")
	}
	if out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "true").CombinedOutput(); err != nil {
		t.Logf("unshare: %v: %s", err, out)
		Lacking(t, "the right to make namespaces")
	}
}

// StartContainer starts the program. It ends with the test.
func StartContainer(t testing.TB, o ContainerOptions) *Container {
	t.Helper()
	c := &Container{o: o, t: t, done: make(chan struct{})}
	// Two namespaces of processes: the program is the first of the inner one, as in any container, but it loses the
	// signal of its parent's death with its privileges. The first of the outer one keeps it, and takes all with it.
	args := []string{"--pid", "--fork", "--kill-child=KILL",
		"unshare", "--mount", "--propagation", "private", "--net", "--ipc", "--uts", "--pid", "--fork",
		"sh", "-euc", containerScript, "container", o.Root, o.Volume, o.Target, o.User}
	c.cmd = exec.Command("unshare", append(args, o.Args...)...)
	c.cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, o.Env...)
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("start container: %v", err)
	}
	go func() {
		_ = c.cmd.Wait() // its status is read from ProcessState
		close(c.done)
	}()
	t.Cleanup(func() {
		c.Kill()
		if t.Failed() {
			t.Logf("output of the container:\n%s", Tail(c.Out(), 8000))
		}
	})
	program := filepath.Base(o.Args[0])
	limit := time.After(startLimit)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if pid := childOf(childOf(c.cmd.Process.Pid)); pid != 0 {
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && filepath.Base(exe) == program {
				c.pid = pid
				return c
			}
		}
		select {
		case <-c.done:
			t.Fatalf("the container ended before its program began:\n%s", c.Out())
		case <-limit:
			t.Fatalf("the container's program has not begun after %v:\n%s", startLimit, c.Out())
		case <-tick.C:
		}
	}
}

func childOf(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return child
}

// Out is what the program wrote to stdout and stderr, as a runtime's logs show it.
func (c *Container) Out() string { return c.out.String() }

// Proc is a path in /proc of the program, seen from outside: Proc("root", "data") is the folder /data of the container.
func (c *Container) Proc(elem ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(c.pid)}, elem...)...)
}

// Exec runs another program in the container, as its user.
func (c *Container) Exec(args ...string) (out string, code int) {
	c.t.Helper()
	uid, gid, _ := strings.Cut(c.o.User, ":")
	return c.enter(append([]string{"--mount", "--net", "--pid", "--root", "--wd", "--setuid", uid, "--setgid", gid, "--"}, args...)...)
}

// Shell runs a command of this machine in the container's network, as a user does whose machine's port leads there.
func (c *Container) Shell(command string) (out string, code int) {
	c.t.Helper()
	return c.enter("--net", "--", "sh", "-c", command)
}

func (c *Container) enter(args ...string) (string, int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(c.pid)}, args...)...)
	cmd.Env = c.cmd.Env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		c.t.Fatalf("enter container: %v", err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// Stop sends a signal to the program and returns its exit status. It fails the test after the limit.
func (c *Container) Stop(sig syscall.Signal, limit time.Duration) int {
	c.t.Helper()
	if err := syscall.Kill(c.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		c.t.Fatalf("send %v: %v", sig, err)
	}
	select {
	case <-c.done:
	case <-time.After(limit):
		c.Kill()
		c.t.Errorf("the container still ran %v after %v", limit, sig)
	}
	return c.cmd.ProcessState.ExitCode()
}

// Kill ends all of the container at once.
func (c *Container) Kill() {
	_ = c.cmd.Process.Kill() // and the kernel all that is in its namespace
	<-c.done
}
