/* The asynchronous client of Eclipse Paho C as a peer of the benchmark: publishes at QoS 1 as fast as the window allows.
 *
 * It takes the same arguments as every peer, and prints the same answer. Only the mode "throughput" is known. */

#include <MQTTAsync.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const TOPIC = "devices/bench-01/messages/events/";

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int connected;
static int failed;
static long in_flight;
static unsigned long long acked;

static double seconds(clockid_t clock) {
    struct timespec at;
    clock_gettime(clock, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void on_connected(void *context, MQTTAsync_successData *data) {
    (void)context;
    (void)data;
    pthread_mutex_lock(&lock);
    connected = 1;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}

static void on_failure(void *context, MQTTAsync_failureData *data) {
    (void)context;
    fprintf(stderr, "paho-peer: failed with code %d: %s\n", data ? data->code : 0,
            data && data->message ? data->message : "no reason given");
    pthread_mutex_lock(&lock);
    failed = 1;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}

static void on_acked(void *context, MQTTAsync_successData *data) {
    (void)context;
    (void)data;
    pthread_mutex_lock(&lock);
    in_flight--;
    acked++;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}

static int on_message(void *context, char *topic, int length, MQTTAsync_message *message) {
    (void)context;
    (void)length;
    MQTTAsync_freeMessage(&message);
    MQTTAsync_free(topic);
    return 1;
}

static const char *argument(int count, char **arguments, const char *name, const char *otherwise) {
    for (int at = 1; at + 1 < count; at++) {
        if (strcmp(arguments[at], name) == 0) {
            return arguments[at + 1];
        }
    }
    return otherwise;
}

int main(int count, char **arguments) {
    const char *mode = argument(count, arguments, "--mode", "throughput");
    const char *ca = argument(count, arguments, "--ca", NULL);
    int window = atoi(argument(count, arguments, "--window", "1"));
    int payload_bytes = atoi(argument(count, arguments, "--payload", "100"));
    double warm_up = atof(argument(count, arguments, "--warm-up", "150")) / 1e3;
    double measure = atof(argument(count, arguments, "--measure", "500")) / 1e3;
    if (strcmp(mode, "throughput") != 0 || window < 1 || payload_bytes < 1) {
        fprintf(stderr, "paho-peer: only --mode throughput, with a window and a payload of at least 1\n");
        return 2;
    }

    char address[64];
    snprintf(address, sizeof address, "%s://127.0.0.1:%s", ca ? "ssl" : "tcp", argument(count, arguments, "--port", "1883"));
    MQTTAsync client;
    if (MQTTAsync_create(&client, address, "bench-01", MQTTCLIENT_PERSISTENCE_NONE, NULL) != MQTTASYNC_SUCCESS) {
        return 1;
    }
    MQTTAsync_setCallbacks(client, NULL, NULL, on_message, NULL);
    MQTTAsync_connectOptions connect = MQTTAsync_connectOptions_initializer;
    MQTTAsync_SSLOptions tls = MQTTAsync_SSLOptions_initializer;
    connect.keepAliveInterval = 1200;
    connect.cleansession = 1;
    connect.maxInflight = window;
    connect.onSuccess = on_connected;
    connect.onFailure = on_failure;
    if (ca) {
        tls.trustStore = ca;
        tls.enableServerCertAuth = 1;
        connect.ssl = &tls;
    }
    if (MQTTAsync_connect(client, &connect) != MQTTASYNC_SUCCESS) {
        return 1;
    }
    pthread_mutex_lock(&lock);
    while (!connected && !failed) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);

    char *payload = malloc((size_t)payload_bytes);
    if (!payload) {
        return 1;
    }
    memset(payload, 'x', (size_t)payload_bytes);
    double warm_until = seconds(CLOCK_MONOTONIC) + warm_up;
    double started = 0, cpu_before = 0;
    unsigned long long acked_before = 0;
    while (!failed) {
        pthread_mutex_lock(&lock);
        while (in_flight >= window && !failed) {
            pthread_cond_wait(&changed, &lock);
        }
        in_flight++;
        unsigned long long acked_now = acked;
        pthread_mutex_unlock(&lock);

        double now = seconds(CLOCK_MONOTONIC);
        if (started == 0 && now >= warm_until) {
            started = now;
            cpu_before = seconds(CLOCK_PROCESS_CPUTIME_ID);
            acked_before = acked_now;
        } else if (started != 0 && now - started >= measure) {
            printf("{\"acked\": %llu, \"seconds\": %f, \"cpu_us\": %f}\n", acked_now - acked_before, now - started,
                   (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_before) * 1e6);
            fflush(stdout);
            /* What is in flight goes with the process. */
            _Exit(0);
        }
        MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
        options.onSuccess = on_acked;
        options.onFailure = on_failure;
        if (MQTTAsync_send(client, TOPIC, payload_bytes, payload, 1, 0, &options) != MQTTASYNC_SUCCESS) {
            fprintf(stderr, "paho-peer: the client refused a message\n");
            return 1;
        }
    }
    return 1;
}
