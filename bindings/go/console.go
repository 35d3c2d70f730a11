package sysbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// Console receives the master of a terminal that a program in a container runs on.
type Console struct {
	// Socket is for CreateOptions.Console or ExecOptions.Console.
	Socket *os.File
	ours   *net.UnixConn
}

// NewConsole makes a pair of sockets for one terminal.
func NewConsole() (*Console, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, err
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		theirs.Close()
		return nil, errors.New("sysbox: a socket pair is not of Unix sockets")
	}
	return &Console{theirs, unix}, nil
}

// Terminal is the terminal's master, when Create or Exec has succeeded. It is the caller's to close.
func (c *Console) Terminal(ctx context.Context) (*os.File, error) {
	const op = "receive a terminal"
	defer context.AfterFunc(ctx, func() { c.ours.SetReadDeadline(time.Unix(1, 0)) })()
	text, oob := make([]byte, 64), make([]byte, syscall.CmsgSpace(4))
	_, n, _, _, err := c.ours.ReadMsgUnix(text, oob)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ended(ctx, op, "")
		}
		return nil, fmt.Errorf("sysbox: %s: %w", op, err)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, fmt.Errorf("sysbox: %s: %w", op, err)
	}
	for _, m := range messages {
		if fds, err := syscall.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			// So that Close and deadlines end a Read.
			if err := syscall.SetNonblock(fds[0], true); err != nil {
				syscall.Close(fds[0])
				return nil, os.NewSyscallError("fcntl", err)
			}
			return os.NewFile(uintptr(fds[0]), "terminal"), nil
		}
	}
	return nil, fmt.Errorf("sysbox: %s: none was sent", op)
}

// Close closes both sockets. Closing it again does nothing.
func (c *Console) Close() error {
	c.Socket.Close()
	c.ours.Close()
	return nil
}
