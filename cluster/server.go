package cluster

import (
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// ServerOptions configure the embedded NATS server. The zero value listens on
// a free port of the loopback interface.
type ServerOptions struct {
	Listen    string // host:port; port 0 = a free one
	InProcess bool   // no port at all: only Connect with this server reaches it
	Token     string // what clients must present; the URL carries it
	Logger    *slog.Logger
}

// serverPayload is the largest message of the embedded server. External ones
// have their own limit (1 MiB by default), which [Conn.Submit] respects.
const serverPayload = 8 << 20

// Server is an embedded NATS server, without JetStream and without a disk.
type Server struct {
	nats  *server.Server
	token string
}

// StartServer starts a NATS server inside this process and returns when it
// accepts connections. An address in use is an error that names it.
func StartServer(o ServerOptions) (*Server, error) {
	host, port, err := listenAddress(o.Listen)
	if err != nil {
		return nil, err
	}
	srv, err := server.NewServer(&server.Options{
		ServerName:    "terse",
		Host:          host,
		Port:          port,
		DontListen:    o.InProcess,
		Authorization: o.Token,
		MaxPayload:    serverPayload,
		NoLog:         true,
		NoSigs:        true, // signals belong to the program
	})
	if err != nil {
		return nil, fmt.Errorf("cannot start the embedded NATS server: %w", err)
	}
	fatal := make(chan string, 1)
	srv.SetLoggerV2(serverLog{logger: loggerOr(o.Logger), fatal: fatal}, false, false, false)
	srv.Start()
	if err := awaitReady(srv, fatal); err != nil {
		srv.Shutdown()
		return nil, fmt.Errorf("cannot start the embedded NATS server on %s: %w", net.JoinHostPort(host, strconv.Itoa(max(port, 0))), err)
	}
	return &Server{nats: srv, token: o.Token}, nil
}

// listenAddress splits host:port into what the NATS server wants, where -1 is
// a free port.
func listenAddress(listen string) (string, int, error) {
	if listen == "" {
		return "127.0.0.1", server.RANDOM_PORT, nil
	}
	host, portText, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("cannot use NATS listen address %q: want host:port: %w", listen, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("cannot use NATS listen address %q: port %q is not in 0..65535", listen, portText)
	}
	if port == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(port), nil
}

// awaitReady waits in short steps, because the server reports a port in use to
// its logger only and would otherwise let the whole timeout pass.
func awaitReady(srv *server.Server, fatal <-chan string) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		select {
		case message := <-fatal:
			return fmt.Errorf("%s: is the port in use? choose another address", message)
		default:
		}
		if srv.ReadyForConnections(50 * time.Millisecond) {
			return nil
		}
	}
	return fmt.Errorf("it did not become ready within 10 s")
}

// URL is where other processes connect, with the token if there is one; ""
// when the server has no port.
func (s *Server) URL() string {
	addr := s.nats.Addr()
	if addr == nil {
		return ""
	}
	if s.token != "" {
		return "nats://" + s.token + "@" + addr.String()
	}
	return "nats://" + addr.String()
}

// Shutdown closes all connections and returns when the server has ended.
func (s *Server) Shutdown() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}

// serverLog keeps the NATS server's own chatter at debug level, in slog.
type serverLog struct {
	logger *slog.Logger
	fatal  chan<- string
}

func (l serverLog) Noticef(format string, v ...any) { l.debug(format, v) }
func (l serverLog) Debugf(format string, v ...any)  { l.debug(format, v) }
func (l serverLog) Tracef(format string, v ...any)  { l.debug(format, v) }
func (l serverLog) Warnf(format string, v ...any) {
	l.logger.Warn("nats server", "message", fmt.Sprintf(format, v...))
}
func (l serverLog) Errorf(format string, v ...any) {
	l.logger.Warn("nats server", "message", fmt.Sprintf(format, v...))
}

func (l serverLog) Fatalf(format string, v ...any) {
	message := fmt.Sprintf(format, v...)
	select {
	case l.fatal <- message:
	default:
		l.logger.Error("nats server", "message", message)
	}
}

func (l serverLog) debug(format string, v []any) {
	l.logger.Debug("nats server", "message", fmt.Sprintf(format, v...))
}

func loggerOr(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
