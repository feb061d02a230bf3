// Produces orders, and consumes them in a group.
'use strict'

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require('kafkajs')

// kafkajs brings gzip alone, and other clients compress otherwise: franz-go with snappy unless it is told not to.
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const client = (bootstrap) => new Kafka({ clientId: 'orders', brokers: bootstrap.split(','), logLevel: logLevel.NOTHING })

async function produce(bootstrap, topic, count) {
  // With idempotence a retry writes nothing twice. A send is tried again for some seconds, for instance while leaders move.
  const producer = client(bootstrap).producer({ idempotent: true, allowAutoTopicCreation: true })
  const messages = Array.from({ length: count }, (_, order) => ({
    // One customer's orders have one key, so they are in one partition, in order.
    key: `customer-${order % 5}`,
    value: JSON.stringify({ order }),
    headers: { source: 'javascript' },
  }))
  try {
    await producer.connect()
    // -1: a record counts once all in-sync replicas have it.
    await producer.send({ topic, acks: -1, messages })
  } catch (error) {
    throw new Error(`not all of ${count} orders are written: ${error.message}`)
  } finally {
    await producer.disconnect()
  }
}

async function consume(bootstrap, topic, groupId, count) {
  const consumer = client(bootstrap).consumer({ groupId })
  try {
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await new Promise((resolve, reject) => {
      process.once('SIGINT', () => reject(new Error('interrupted')))
      // What can be tried again the client tries again by itself.
      consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || reject(payload.error))
      const eachBatch = async ({ batch, resolveOffset, heartbeat, commitOffsetsIfNecessary, uncommittedOffsets }) => {
        for (const { key, value, headers, offset } of batch.messages) {
          console.log(`${key} ${value} ${headers.source}`)
          count--
          resolveOffset(offset)
          await heartbeat()
        }
        // Committed once they are handled: after a crash some orders come again, and none is left out.
        await commitOffsetsIfNecessary(uncommittedOffsets())
        if (count <= 0) resolve()
      }
      consumer.run({ autoCommit: false, eachBatch }).catch(reject)
    })
  } finally {
    // The group hears at once that this member is gone.
    await consumer.disconnect()
  }
}

async function main([command, ...rest]) {
  if (command === 'produce' && rest.length === 3) return produce(rest[0], rest[1], Number(rest[2]))
  if (command === 'consume' && rest.length === 4) return consume(rest[0], rest[1], rest[2], Number(rest[3]))
  throw new Error('usage: orders.js produce BOOTSTRAP TOPIC COUNT | consume BOOTSTRAP TOPIC GROUP COUNT')
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message)
  process.exitCode = 1
})
