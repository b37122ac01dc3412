/* The floor of what a request costs on a socket: one thread around epoll that has no node behind it.
 *
 * Whatever a request says, it is answered with a nil. Requests are told apart by a '*' that begins a line, which is
 * enough for redis-benchmark. What a proxy spends above this is its own.
 *
 *     cc -O2 -o floor floor.c && ./floor PORT        listens on loopback
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 512, BACKLOG = 512, BUFFER = 64 * 1024 };

static const char REPLY[5] = {'$', '-', '1', '\r', '\n'};
static const int ON = 1;

static int die(const char *what) {
    perror(what);
    return 1;
}

static int watch(int epoll, int socket) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = socket};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event);
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &ON, sizeof ON);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, BACKLOG)) return -1;
    return listener;
}

static void accept_all(int epoll, int listener) {
    int client;
    while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &ON, sizeof ON);
        watch(epoll, client);
    }
}

/* One receive and one send; input that is cut inside a request needs no memory of where. A request has more bytes
 * than its reply, so one buffer's replies always fit the other. */
static void answer(int client) {
    static char input[BUFFER], output[BUFFER];
    ssize_t received = recv(client, input, sizeof input, 0);
    if (received <= 0) {
        close(client);
        return;
    }
    size_t length = 0;
    for (ssize_t i = 0; i < received; i++) {
        if (input[i] != '*' || (i > 0 && input[i - 1] != '\n')) continue;
        if (length + sizeof REPLY > sizeof output) break;
        memcpy(output + length, REPLY, sizeof REPLY);
        length += sizeof REPLY;
    }
    if (length > 0 && send(client, output, length, MSG_NOSIGNAL) < 0) close(client);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    int epoll = epoll_create1(0), listener = listen_on(atoi(argv[1]));
    if (epoll < 0 || listener < 0 || watch(epoll, listener)) return die(argv[1]);
    struct epoll_event ready[EVENTS];
    for (;;) {
        int count = epoll_wait(epoll, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int socket = ready[i].data.fd;
            if (socket == listener) accept_all(epoll, listener);
            else answer(socket);
        }
    }
}
