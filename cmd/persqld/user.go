package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/persqld/persqld/internal/catalog"
	"github.com/persqld/persqld/internal/config"
	"github.com/persqld/persqld/internal/password"
)

type userCmd struct {
	Create        userCreateCmd  `cmd:"" help:"Make a user, who can then sign in."`
	ResetPassword resetCmd       `cmd:"" help:"Give a user another password; all of the user's sessions end."`
	ResetLink     resetLinkCmd   `cmd:"" help:"Print a link, once, by which a user sets another password."`
	Disable       userDisableCmd `cmd:"" help:"Keep a user from signing in; all of the user's sessions and open invitations end. Tokens live on."`
	Enable        userEnableCmd  `cmd:"" help:"Let a disabled user sign in again."`
	List          userListCmd    `cmd:"" help:"List the users."`
}

// passwordFlag is where a password comes from. On a command line other users of the machine can see it.
type passwordFlag struct {
	Password string `help:"The password, 8 to 1,024 bytes. Left out, it is asked for on a terminal, else read from the first line of standard input, which other users of the machine can't see." placeholder:"PASSWORD"`
}

type userCreateCmd struct {
	config.Location `embed:"" group:"settings"`
	Email           string `required:"" help:"E-mail address to sign in with." placeholder:"EMAIL"`
	passwordFlag    `embed:""`
	Name            string `help:"A name for people; the e-mail address before the @ if left out." placeholder:"NAME"`
	Namespace       string `help:"Slug of a namespace to make the user a member of." placeholder:"SLUG"`
	Role            string `help:"Role there: viewer, editor, admin or owner (default admin)." placeholder:"ROLE"`
}

// Validate refuses a role of nothing.
func (cmd *userCreateCmd) Validate() error {
	if cmd.Role != "" && cmd.Namespace == "" {
		return errors.New("--role takes --namespace")
	}
	return nil
}

type resetCmd struct {
	config.Location `embed:"" group:"settings"`
	Email           string `required:"" help:"The user's e-mail address." placeholder:"EMAIL"`
	passwordFlag    `embed:""`
}

type userDisableCmd struct {
	config.Location `embed:"" group:"settings"`
	Email           string `required:"" help:"The user's e-mail address." placeholder:"EMAIL"`
}

type userEnableCmd userDisableCmd

type userListCmd struct {
	config.Location `embed:"" group:"settings"`
}

// userInfo is a user as it is printed.
type userInfo struct {
	ID            string           `json:"id"`
	Email         string           `json:"email"`
	Name          string           `json:"name"`
	EmailVerified bool             `json:"emailVerified"`
	Sessions      int              `json:"sessions"`
	Namespaces    []membershipInfo `json:"namespaces"`
	CreatedAt     time.Time        `json:"createdAt"`
	DisabledAt    *time.Time       `json:"disabledAt"`
}

type membershipInfo struct {
	Slug string `json:"slug"`
	Role string `json:"role"`
}

type userList struct {
	Users []userInfo `json:"users"`
}

type userArgs struct {
	Email     string `json:"email"`
	Password  string `json:"password,omitempty"`
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Role      string `json:"role,omitempty"`
	Disabled  bool   `json:"disabled,omitempty"`
}

type resetInfo struct {
	userInfo
	SessionsEnded int `json:"sessionsEnded"`
}

func infoOfUser(c *ledgers, u *catalog.User) userInfo {
	info := userInfo{ID: u.ID, Email: u.Email, Name: u.Name, EmailVerified: u.EmailVerified, CreatedAt: u.CreatedAt, DisabledAt: optional(u.DisabledAt),
		Sessions: len(c.Sessions(u.ID)), Namespaces: []membershipInfo{}}
	for _, m := range c.Memberships(u.ID) {
		info.Namespaces = append(info.Namespaces, membershipInfo{m.Slug, m.Role})
	}
	return info
}

func createUser(ctx context.Context, c *ledgers, args userArgs) (userInfo, error) {
	n := catalog.NewUser{Email: args.Email, Name: args.Name, Role: args.Role}
	if args.Namespace != "" {
		ns, err := c.Namespace(args.Namespace)
		if err != nil {
			return userInfo{}, fmt.Errorf("create user in %q: %w", args.Namespace, err)
		}
		n.NamespaceID = ns.ID
		if n.Role == "" {
			n.Role = catalog.MemberAdmin
		}
	}
	var err error
	if n.PasswordHash, err = c.passwords.Hash(ctx, args.Password); err != nil {
		return userInfo{}, err
	}
	u, err := c.CreateUser(ctx, n)
	if err != nil {
		return userInfo{}, err
	}
	return infoOfUser(c, u), nil
}

// userOf is the user of an e-mail address, as the operator wrote it.
func userOf(c *ledgers, email string) (*catalog.User, error) {
	folded, err := catalog.FoldEmail(email)
	if err != nil {
		return nil, err
	}
	u, err := c.UserByEmail(folded)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", folded, err)
	}
	return u, nil
}

func resetPassword(ctx context.Context, c *ledgers, args userArgs) (resetInfo, error) {
	u, err := userOf(c, args.Email)
	if err != nil {
		return resetInfo{}, err
	}
	hash, err := c.passwords.Hash(ctx, args.Password)
	if err != nil {
		return resetInfo{}, err
	}
	ended, err := c.ResetPassword(ctx, u.ID, hash)
	if err != nil {
		return resetInfo{}, err
	}
	return resetInfo{infoOfUser(c, u), ended}, nil
}

func disableUser(ctx context.Context, c *ledgers, args userArgs) (userInfo, error) {
	u, err := userOf(c, args.Email)
	if err != nil {
		return userInfo{}, err
	}
	if u, err = c.SetDisabled(ctx, u.ID, args.Disabled); err != nil {
		return userInfo{}, err
	}
	return infoOfUser(c, u), nil
}

func listUsers(_ context.Context, c *ledgers, _ struct{}) (userList, error) {
	list := userList{Users: []userInfo{}}
	for _, u := range c.Users() {
		list.Users = append(list.Users, infoOfUser(c, u))
	}
	return list, nil
}

// read is the password of the flag, of the person at the terminal, or of standard input.
func (p *passwordFlag) read(a *app) (string, error) {
	if p.Password != "" {
		return p.Password, nil
	}
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		var typed [2]string
		for i, prompt := range []string{"Password: ", "Again: "} {
			fmt.Fprint(a.stderr, prompt)
			line, err := term.ReadPassword(fd)
			fmt.Fprintln(a.stderr)
			if err != nil {
				return "", fmt.Errorf("read password: %w", err)
			}
			typed[i] = string(line)
		}
		if typed[0] != typed[1] {
			return "", errors.New("the two passwords differ")
		}
		return typed[0], password.Check(typed[0])
	}
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, password.MaxLength+2)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read password: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	return line, password.Check(line)
}

// Run makes the user.
func (cmd *userCreateCmd) Run(a *app) error {
	secret, err := cmd.read(a)
	if err != nil {
		return err
	}
	var made userInfo
	if err := a.ask(cmd.Location, "user.create", userArgs{Email: cmd.Email, Password: secret, Name: cmd.Name, Namespace: cmd.Namespace, Role: cmd.Role}, &made); err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "User %s (%s) made.\n", made.Email, made.ID)
		return err
	})
}

// Run resets the password.
func (cmd *resetCmd) Run(a *app) error {
	secret, err := cmd.read(a)
	if err != nil {
		return err
	}
	var reset resetInfo
	if err := a.ask(cmd.Location, "user.reset-password", userArgs{Email: cmd.Email, Password: secret}, &reset); err != nil {
		return err
	}
	return a.print(reset, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "User %s has another password; %d sessions ended.\n", reset.Email, reset.SessionsEnded)
		return err
	})
}

// Run disables the user.
func (cmd *userDisableCmd) Run(a *app) error { return setDisabled(a, cmd.Location, cmd.Email, true) }

// Run enables the user.
func (cmd *userEnableCmd) Run(a *app) error { return setDisabled(a, cmd.Location, cmd.Email, false) }

func setDisabled(a *app, where config.Location, email string, disabled bool) error {
	var u userInfo
	if err := a.ask(where, "user.disable", userArgs{Email: email, Disabled: disabled}, &u); err != nil {
		return err
	}
	return a.print(u, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "User %s may %ssign in.\n", u.Email, map[bool]string{true: "no longer "}[disabled])
		return err
	})
}

// Run lists the users.
func (cmd *userListCmd) Run(a *app) error {
	var list userList
	if err := a.ask(cmd.Location, "user.list", struct{}{}, &list); err != nil {
		return err
	}
	return a.print(list, func(w io.Writer) error {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "E-MAIL\tID\tNAME\tNAMESPACES\tSESSIONS\tCREATED\tSTATE")
		for _, u := range list.Users {
			var in []string
			for _, m := range u.Namespaces {
				in = append(in, m.Slug+":"+m.Role)
			}
			state := "works"
			if u.DisabledAt != nil {
				state = "disabled"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", u.Email, u.ID, u.Name, strings.Join(in, " "), u.Sessions, u.CreatedAt.Format(time.RFC3339), state)
		}
		return table.Flush()
	})
}
