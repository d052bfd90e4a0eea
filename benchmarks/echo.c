/* The limit: what one thread of C with epoll takes for the work of server.py.
 *
 *     echo tcp | udp | http | unix PATH
 *
 * Says "READY PORT" when it accepts, and ends when its standard input does.
 * Reads once for each event, writes at once, and keeps what the socket does not take.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { RECEIVE = 64 * 1024, EVENTS = 256 };

struct connection {
    int fd;
    char *unsent;
    size_t left;
};

static const char ANSWER[] = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n"
                             "date: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: echo\r\n\r\nHello, world!";
static char bytes[RECEIVE];
static int poller;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void want(struct connection *connection, int how, int operation)
{
    struct epoll_event event = {.events = how, .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &event) < 0)
        fail("epoll_ctl");
}

static struct connection *watch(int fd)
{
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        fail("calloc");
    connection->fd = fd;
    want(connection, EPOLLIN, EPOLL_CTL_ADD);
    return connection;
}

static void end(struct connection *connection)
{
    close(connection->fd);
    free(connection->unsent);
    free(connection);
}

/* Sends; what is not taken is kept, and nothing more is read until it has gone. */
static void put(struct connection *connection, const char *data, size_t size)
{
    ssize_t sent = send(connection->fd, data, size, MSG_NOSIGNAL);
    if (sent < 0)
        sent = 0;
    if ((size_t)sent == size)
        return;
    connection->left = size - sent;
    connection->unsent = malloc(connection->left);
    if (!connection->unsent)
        fail("malloc");
    memcpy(connection->unsent, data + sent, connection->left);
    want(connection, EPOLLOUT, EPOLL_CTL_MOD);
}

static void put_rest(struct connection *connection)
{
    ssize_t sent = send(connection->fd, connection->unsent, connection->left, MSG_NOSIGNAL);
    if (sent <= 0)
        return;
    connection->left -= sent;
    if (connection->left) {
        memmove(connection->unsent, connection->unsent + sent, connection->left);
        return;
    }
    free(connection->unsent);
    connection->unsent = NULL;
    want(connection, EPOLLIN, EPOLL_CTL_MOD);
}

static int listen_at(const char *kind, const char *path)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    int is_unix = path != NULL, is_udp = !strcmp(kind, "udp");
    int fd = socket(is_unix ? AF_UNIX : AF_INET, (is_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK, 0);
    if (is_unix)
        strncpy(local.sun_path, path, sizeof local.sun_path - 1);
    if (fd < 0 || bind(fd, is_unix ? (void *)&local : (void *)&address, is_unix ? sizeof local : sizeof address) < 0)
        fail("bind");
    if (!is_udp && listen(fd, 4096) < 0)
        fail("listen");
    socklen_t size = sizeof address;
    if (!is_unix && getsockname(fd, (void *)&address, &size) < 0)
        fail("getsockname");
    printf("READY %d\n", is_unix ? 0 : ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void accept_one(struct connection *listener)
{
    int one = 1, fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(fd);
}

static void answer_datagram(int fd)
{
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    ssize_t got = recvfrom(fd, bytes, sizeof bytes, 0, (void *)&peer, &size);
    if (got >= 0)
        sendto(fd, bytes, got, 0, (void *)&peer, size);
}

static void answer(struct connection *connection, int is_http)
{
    ssize_t got = recv(connection->fd, bytes, sizeof bytes, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        end(connection);
        return;
    }
    if (!is_http)
        put(connection, bytes, got);
    else if (got >= 4 && !memcmp(bytes + got - 4, "\r\n\r\n", 4))
        put(connection, ANSWER, sizeof ANSWER - 1);
}

int main(int count, char **words)
{
    if (count < 2)
        return 2;
    int is_udp = !strcmp(words[1], "udp"), is_http = !strcmp(words[1], "http");
    poller = epoll_create1(0);
    struct connection *owner = watch(0);
    struct connection *listener = watch(listen_at(words[1], count > 2 ? words[2] : NULL));
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int number = 0; number < ready; number++) {
            struct connection *connection = events[number].data.ptr;
            if (connection == owner)
                return 0;
            if (connection == listener && is_udp)
                answer_datagram(connection->fd);
            else if (connection == listener)
                accept_one(connection);
            else if (connection->unsent)
                put_rest(connection);
            else
                answer(connection, is_http);
        }
    }
}
